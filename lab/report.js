"use strict";
// Swaps each still chart for one that answers the pointer and fits its column, adds a copy button to every
// query. Without this script the page shows the same charts, as stills.
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}
async function load() {
  const vega = document.createElement("script");
  vega.textContent = await unpack(document.getElementById("vega").textContent).text();
  document.head.append(vega);
}
const loaded = load();
// Letters of panels side by side are as wide as the reader's font: what stands over is taken from the panels.
function narrowed(spec, over) {
  const panels = spec.hconcat ?? spec.vconcat ?? [spec.spec ?? spec];
  const less = Math.ceil(over / (spec.hconcat?.length ?? spec.columns ?? 1));
  if (panels.some((panel) => !(panel.width - less >= 60))) return false;
  for (const panel of panels) panel.width -= less;
  return true;
}
async function draw(figure) {
  const width = figure.clientWidth;
  if (figure.drawnAt === width) return;
  figure.drawnAt = width;
  const spec = await unpack(figure.querySelector("script").textContent).json();
  await loaded;
  if (typeof spec.width === "number") spec.width = width; // a facet keeps its panels' width where they fit
  const still = figure.querySelector(".still");
  const live = figure.querySelector(".live") ?? document.createElement("div");
  live.className = "live";
  still.after(live);
  const embed = () => vegaEmbed(live, spec, { mode: "vega-lite", renderer: "svg", actions: false });
  embed()
    .then(() => {
      const over = live.querySelector("svg").viewBox.baseVal.width - width;
      return over > 0 && narrowed(spec, over) ? embed() : null;
    })
    .then(() => { still.hidden = true; figure.dataset.chart = "live"; })
    .catch((error) => {
      live.remove();
      still.hidden = false;
      figure.dataset.chart = "still";
      console.error(error);
    });
}
const watcher = new ResizeObserver((entries) => {
  setTimeout(() => entries.forEach((entry) => draw(entry.target))); // after its own layout pass
});
for (const figure of document.querySelectorAll("figure[data-chart]")) {
  draw(figure);
  watcher.observe(figure);
}
for (const code of document.querySelectorAll("pre > code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: copy it with the keyboard";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  code.parentElement.after(button);
}
