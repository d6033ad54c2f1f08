/** What the page was rendered with: the address of its channels, and the cursor to go on from. */
export const { url, ...options } = JSON.parse(document.getElementById("pushcompat").textContent);

export async function comments() {
  return (await fetch("/comments.json")).json();
}
