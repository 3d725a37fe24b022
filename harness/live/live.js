"use strict";
// Follows the server: replaces the parts of the page that have changed, says when no word comes any more.
(() => {
  const root = document.querySelector("[data-events]");
  const lost = document.querySelector(".lost");
  const wait = document.querySelector(".wait");
  const QUIET_SECONDS = 12; // the server speaks every 5
  let heard = Date.now();
  let shownLooks = null; // the report that stands in the page is of this many looks

  const seconds = (value) =>
    value < 100 ? `${Math.round(value)} s` : value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
  const tick = () => {
    for (const it of document.querySelectorAll("time[data-since]")) {
      const text = seconds(Math.max(Date.now() / 1000 - Number(it.dataset.since), 0));
      if (it.textContent !== text) it.textContent = text;
    }
    const quiet = (Date.now() - heard) / 1000;
    lost.hidden = quiet < QUIET_SECONDS;
    if (!lost.hidden) lost.textContent = `No word from harness ui for ${seconds(quiet)}: it has been stopped or is held up. What stands here is as it was then; training goes on without this page.`;
  };
  const replace = (id, html) => {
    const element = document.getElementById(id);
    if (!element) return;
    const open = [...element.querySelectorAll("details[open]")].map((it) => it.id);
    const left = element.querySelector(".scroll")?.scrollLeft ?? 0;
    element.innerHTML = html;
    open.forEach((it) => document.getElementById(it)?.setAttribute("open", ""));
    const scroll = element.querySelector(".scroll");
    if (scroll) scroll.scrollLeft = left;
  };
  const say = (text) => {
    wait.textContent = text;
    wait.hidden = !text;
  };
  const loaded = new Map();
  const load = (source) => {
    if (!loaded.has(source)) {
      loaded.set(source, new Promise((resolve, reject) => {
        const script = Object.assign(document.createElement("script"), { src: source, onload: resolve, onerror: reject });
        document.head.append(script);
      }));
    }
    return loaded.get(source);
  };

  const showReport = async (looks) => {
    if (!root.dataset.run || !looks || shownLooks === looks) return;
    shownLooks = looks;
    say("Tables and figures of the last look are being made.");
    try {
      const answer = await fetch(`${root.dataset.run}report`);
      if (!answer.ok) throw new Error((await answer.json()).reason);
      const report = await answer.json();
      document.getElementById("report").innerHTML = report.html;
      say("");
      if (Object.keys(report.figures.figures).length) {
        await load("/files/plotly.js");
        await drawReport(report.figures);
      }
    } catch (error) {
      say(`The report of the last look cannot be shown: ${error.message}`);
    }
  };

  document.addEventListener("click", async (event) => {
    const log = event.target.closest("[data-log]");
    if (log) {
      const dialog = document.querySelector("dialog.log");
      dialog.querySelector("b").textContent = `cell ${log.dataset.log}`;
      dialog.querySelector("pre").textContent = "…";
      dialog.showModal();
      const answer = await fetch(`${root.dataset.run}cells/${log.dataset.log}/log`);
      dialog.querySelector("pre").textContent = await answer.text();
    }
    const look = event.target.closest("[data-look]");
    if (look) {
      look.disabled = true;
      say("Looking: the effects are being computed.");
      const answer = await fetch(`${root.dataset.run}look`, { method: "POST" });
      if (answer.ok) return;
      look.disabled = false;
      say(`The effects cannot be shown: ${(await answer.json()).reason}`);
    }
  });

  const source = new EventSource(root.dataset.events);
  const listen = (kind, act) => source.addEventListener(kind, (event) => {
    heard = Date.now();
    act(JSON.parse(event.data));
    tick();
  });
  listen("parts", (parts) => Object.entries(parts).forEach(([id, html]) => replace(id, html)));
  listen("looks", (looks) => showReport(looks));
  listen("alive", () => {});
  setInterval(tick, 1000);
  tick();
})();
