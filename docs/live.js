// On the first page: the page of `make site` in place of its picture, if both stand in one folder.
//
// It starts when the picture is seen and the browser is idle. Whoever asks for less motion or less data starts it by hand.

const picture = document.querySelector('img[src$="images/web/start.jpg"]');
const place = new URL("page/", document.baseURI);
const isQuiet = matchMedia("(prefers-reduced-motion: reduce)").matches || navigator.connection?.saveData;
const idle = window.requestIdleCallback ?? ((then) => setTimeout(then, 200));

function linked(text) {
  const link = Object.assign(document.createElement("a"), { href: new URL("index.html", place), textContent: text });
  const line = Object.assign(document.createElement("p"), { className: "live" });
  line.append(link);
  return line;
}

function start() {
  const frame = Object.assign(document.createElement("iframe"), { src: new URL("index.html", place), title: "Tissue that grows in this browser" });
  frame.style = "display: block; width: 100%; height: min(460px, 70vh); border: 0; border-radius: 8px; visibility: hidden";
  const box = document.createElement("div"); // shows the picture until the page is there
  box.style = `background: url("${picture.src}") center / cover; border-radius: 8px`;
  frame.addEventListener("load", () => { frame.style.visibility = "visible"; });
  box.append(frame);
  picture.replaceWith(box);
  box.after(linked("Open it in a window of its own"));
}

function offer() {
  const button = Object.assign(document.createElement("button"), { textContent: "Run it here", className: "live md-button" });
  button.addEventListener("click", () => { button.remove(); start(); });
  picture.after(button);
}

async function isThere() {
  const answer = await fetch(new URL("models.json", place)).catch(() => null);
  return answer?.ok;
}

if (picture && await isThere()) {
  if (isQuiet) offer();
  else {
    new IntersectionObserver(([{ isIntersecting }], observer) => {
      if (!isIntersecting) return;
      observer.disconnect();
      idle(start);
    }).observe(picture);
  }
}
