"use strict";
// Draws every figure, and draws it again in the other colours when the reader's mode changes.
const drawReport = async ({ figures, themes }) => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false };
  const look = () => ({
    template: dark.matches ? themes.dark : themes.light,
    "font.size": narrow.matches ? 11.5 : 13,
  });
  const redress = () =>
    Object.keys(figures).filter((id) => document.getElementById(id)).forEach((id) => Plotly.relayout(id, look()));
  dark.addEventListener("change", redress);
  narrow.addEventListener("change", redress);
  for (const [id, figure] of Object.entries(figures)) {
    // On a touch screen a drag scrolls the page; zooming by drag would trap it.
    const layout = { ...figure.layout, template: look().template, dragmode: touch ? false : "zoom" };
    layout.font = { size: look()["font.size"] };
    await Plotly.newPlot(id, figure.data, layout, config);
  }
  document.documentElement.dataset.figures = "drawn";
};
if (document.getElementById("figure-data")) drawReport(JSON.parse(document.getElementById("figure-data").textContent));
