import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from "@tanstack/react-query";
import { createRoot } from "react-dom/client";
import { useChannel } from "pushcompat/react";

import { comments, options, url } from "./push.js";

function Comments() {
  const client = useQueryClient();
  const refetch = () => client.invalidateQueries({ queryKey: ["comments"] });
  const { state } = useChannel(url, { ...options, onMessage: refetch, onReset: refetch });
  const { data = [] } = useQuery({ queryKey: ["comments"], queryFn: comments, staleTime: Infinity });
  return (
    <ul id="comments" data-state={state}>
      {data.map((comment, number) => (
        <li key={number}>{comment}</li>
      ))}
    </ul>
  );
}

createRoot(document.getElementById("app")).render(
  <QueryClientProvider client={new QueryClient()}>
    <Comments />
  </QueryClientProvider>,
);
