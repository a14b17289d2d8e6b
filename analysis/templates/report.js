"use strict";

// Colours in the figures are names of custom properties, so that they follow the colour scheme of the page.
const style = () => getComputedStyle(document.documentElement);

function resolve(value, names) {
  if (typeof value === "string") {
    const named = /^var\((--[a-z0-9-]+?)(-band)?\)$/.exec(value);
    if (!named) return value;
    const colour = names.getPropertyValue(named[1]).trim();
    return named[2] ? colour + "26" : colour;  // 15% opaque
  }
  if (Array.isArray(value)) return value.map((item) => resolve(item, names));
  if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, names)]));
  }
  return value;
}

const hidden = new Set();  // arms that were clicked away
let lit = null;            // the arm under the pointer
const figures = [];        // {element, figure, generation: what a slider chose, or null}

function visible(trace, generation) {
  const { arm, generation: own } = trace.meta ?? {};
  if (hidden.has(arm)) return false;
  return generation === null || own === undefined || own < 0 || own === generation;
}

function draw({ element, figure, generation }) {
  const names = style();
  const { data, layout } = resolve(figure, names);
  for (const trace of data) {
    trace.visible = visible(trace, generation);
    if (lit !== null && trace.meta?.arm !== undefined) {
      if (trace.meta.arm === lit) trace.line = { ...trace.line, width: 4 };
      else trace.opacity = 0.2;
    }
  }
  const axis = { gridcolor: names.getPropertyValue("--line"), zeroline: false, automargin: true, fixedrange: true };
  const themed = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
    font: { family: style().fontFamily || "sans-serif", size: 12.5, color: names.getPropertyValue("--muted") },
    hoverlabel: { bgcolor: names.getPropertyValue("--panel"), font: { color: names.getPropertyValue("--ink") } },
  };
  for (const key of ["xaxis", "yaxis"]) themed[key] = { ...axis, ...layout[key] };
  return Plotly.react(element, data, themed, { displayModeBar: false, responsive: true });
}

const redraw = () => figures.forEach(draw);

function legends() {
  for (const button of document.querySelectorAll(".legend button")) {
    const arm = button.dataset.arm;
    button.addEventListener("click", () => {
      hidden.has(arm) ? hidden.delete(arm) : hidden.add(arm);
      for (const same of document.querySelectorAll(".legend button")) {
        if (same.dataset.arm === arm) same.setAttribute("aria-pressed", String(!hidden.has(arm)));
      }
      lit = null;
      redraw();
    });
    const light = (value) => () => { if (lit !== value && !hidden.has(arm)) { lit = value; redraw(); } };
    button.addEventListener("mouseenter", light(arm));
    button.addEventListener("mouseleave", light(null));
  }
}

function sliders() {
  for (const block of document.querySelectorAll(".generations")) {
    const input = block.querySelector("input"), output = block.querySelector("output"), play = block.querySelector("button");
    const show = () => {
      const generation = Number(input.value);
      output.value = input.ariaValueText = `generation ${generation}`;
      for (const image of block.querySelectorAll("img[data-generation]")) {
        const last = Number(image.dataset.last);  // a loop that ended early goes on showing its last images
        image.hidden = Number(image.dataset.generation) !== Math.min(generation, last);
      }
      for (const own of figures) {
        if (block.contains(own.element)) { own.generation = generation; draw(own); }
      }
    };
    let timer = null;
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
    input.addEventListener("input", () => { stop(); show(); });
    play.addEventListener("click", () => {
      if (timer) return stop();
      play.textContent = "Pause";
      if (input.value === input.max) { input.value = input.min; show(); }
      timer = setInterval(() => {
        input.stepUp();
        show();
        if (input.value === input.max) stop();
      }, 900);
    });
    show();
  }
}

async function library() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function main() {
  await library();
  for (const element of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(document.getElementById(element.dataset.figure).textContent);
    figures.push({ element, figure, generation: null });
  }
  legends();
  for (const own of figures) await draw(own);
  sliders();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.body.dataset.ready = "yes";
}

main();
