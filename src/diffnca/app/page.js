"use strict";
// What a button begins is seen: in a narrow window, the result stands below the fields.
document.addEventListener("click", ({ target }) => {
  const tab = target.closest("button.primary")?.closest("[role=tabpanel]");
  tab?.querySelector(".result")?.scrollIntoView({ block: "nearest" });
});
