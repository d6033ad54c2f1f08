import { useCallback, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useChannel } from "pushcompat/react";

import { comments, options, url } from "./push.js";

function Comments() {
  const [list, setList] = useState([]);
  const refetch = useCallback(() => comments().then(setList), []);
  useEffect(() => void refetch(), [refetch]);
  const { state } = useChannel(url, { ...options, onMessage: refetch, onReset: refetch });
  return (
    <ul id="comments" data-state={state}>
      {list.map((comment, number) => (
        <li key={number}>{comment}</li>
      ))}
    </ul>
  );
}

createRoot(document.getElementById("app")).render(<Comments />);
