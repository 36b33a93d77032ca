// The files of the page, from the server that it came from.

// Return the answer with a whole file; an error names the file.
export async function download(file) {
  const answer = await fetch(new URL(file, import.meta.url)).catch(() => null);
  if (answer && !answer.ok) throw new Error(`${file} did not come: the server says ${answer.status}.`);
  const bytes = await answer?.arrayBuffer().catch(() => null);
  if (!bytes) throw new Error(`${file} did not come: the server may be down, or the connection.`);
  return new Response(bytes);
}
