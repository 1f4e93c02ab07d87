// Comforts on top of pages that work without: keys, a replay on one stage, pages that read themselves anew.
"use strict";
document.documentElement.classList.add("js");

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const isTyping = (element) => element instanceof Element && element.matches("input:not([type=checkbox]), textarea, select");

// Lists: j and k move over links marked data-row, / goes to the search.
function moveInList(by) {
  const rows = all("a[data-row]");
  if (!rows.length) return;
  const now = rows.indexOf(document.activeElement);
  const next = now < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(now + by, 0), rows.length - 1);
  rows[next].focus();
  rows[next].scrollIntoView({ block: "nearest" });
}

// Replays.
const players = new Map();
let current = null; // the one that was used last

class Player {
  constructor(root) {
    this.root = root;
    this.steps = all(".frames > li", root);
    this.stage = root.querySelector(".stage");
    this.pictures = new Map(all(".picture[data-picture]", root).map((element) => [element.dataset.picture, element]));
    this.place = root.querySelector(".place");
    this.playButton = root.querySelector("[data-go=play]");
    this.timer = null;
    root.querySelector(".controls").hidden = false;
    this.stage.hidden = false;
    this.marker = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    this.marker.setAttribute("class", "here");
    root.querySelector(".timeline").append(this.marker);
    const wanted = this.steps.findIndex((step) => `#${step.id}` === location.hash);
    this.centre = Number(root.dataset.centre);
    this.show(wanted >= 0 ? wanted : this.centre);
  }

  show(number) {
    this.now = Math.min(Math.max(number, 0), this.steps.length - 1);
    const step = this.steps[this.now];
    for (const other of this.steps) {
      other.classList.toggle("here", other === step);
      if (other === step) other.setAttribute("aria-current", "step");
      else other.removeAttribute("aria-current");
    }
    const picture = this.pictures.get(step.dataset.shows);
    this.stage.replaceChildren(picture ? picture.cloneNode(true) : "No picture was kept of this step.");
    this.place.textContent = `${this.now + 1} of ${this.steps.length}`;
    const list = step.parentElement;
    const above = step.offsetTop - list.offsetTop;
    if (above < list.scrollTop || above + step.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = above - list.clientHeight / 2;
    }
    const column = this.root.querySelector(`.timeline a[data-frame="${this.now}"] rect`);
    for (const name of ["x", "y", "width", "height"]) this.marker.setAttribute(name, column.getAttribute(name));
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.playButton.setAttribute("aria-pressed", "false");
    this.playButton.textContent = "Play";
  }

  go(where) {
    if (where === "play") {
      if (this.timer !== null) return this.stop();
      if (this.now === this.steps.length - 1) this.show(0);
      this.playButton.setAttribute("aria-pressed", "true");
      this.playButton.textContent = "Stop";
      this.timer = setInterval(() => (this.now < this.steps.length - 1 ? this.show(this.now + 1) : this.stop()), 600);
      return undefined;
    }
    this.stop();
    const places = { first: 0, back: this.now - 1, on: this.now + 1, last: this.steps.length - 1, centre: this.centre };
    return this.show(places[where]);
  }
}

const startPlayers = () => {
  for (const root of all("[data-replay]")) if (!players.has(root)) players.set(root, new Player(root));
};

document.addEventListener("click", (event) => {
  const player = players.get(event.target.closest("[data-replay]"));
  if (!player) return;
  current = player;
  const button = event.target.closest("[data-go]");
  const column = event.target.closest(".timeline a");
  const step = event.target.closest(".frames > li");
  if (button) player.go(button.dataset.go);
  else if (column) player.show(Number(column.dataset.frame));
  else if (step && !event.target.closest(".said a")) player.show(player.steps.indexOf(step));
  else return;
  if (!button) event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) {
    if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
    return;
  }
  const inReplay = event.target.closest("[data-replay]");
  const player = players.get(inReplay) || current || [...players.values()][0];
  const steps = { ArrowLeft: "back", ArrowRight: "on", ...(inReplay && { Home: "first", End: "last" }) };
  if (event.key === "/") document.getElementById("search")?.focus();
  else if (event.key === "j" || event.key === "k") moveInList(event.key === "j" ? 1 : -1);
  else if (player && steps[event.key]) player.go(steps[event.key]);
  else if (inReplay && event.key === " " && !event.target.closest("button, summary")) player.go("play");
  else return;
  event.preventDefault();
});

// Choices of run and labeler take effect at once.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.submit();
});

// Ages tick; regions marked data-live are replaced by what the same address gives now.
function words(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function tick() {
  for (const element of all("[data-since]")) {
    element.textContent = words(Math.max(0, Date.now() / 1000 - Number(element.dataset.since)));
  }
}

function replaceRegion(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const open = new Map(all("details[id]", old).map((element) => [element.id, element.open]));
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  if (focused && isTyping(focused)) return; // somebody writes there
  old.replaceChildren(...fresh.childNodes);
  for (const element of all("details[id]", old)) if (open.has(element.id)) element.open = open.get(element.id);
  const address = focused?.getAttribute("href");
  if (address) all("a", old).find((link) => link.getAttribute("href") === address)?.focus({ preventScroll: true });
}

let paused = false;

async function refresh() {
  if (paused || document.hidden || String(getSelection())) return;
  const fresh = document.getElementById("fresh");
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const region of all("[data-live]")) {
      const other = page.getElementById(region.id);
      if (other) replaceRegion(region, other);
    }
    if (page.body.dataset.refresh === "0") paused = true; // the run has ended
    fresh.classList.remove("problem");
  } catch {
    fresh.classList.add("problem");
    fresh.textContent = "The figures cannot be read anew: has oni inspect been ended, or are you logged out? They are as old as the page.";
  }
}

document.addEventListener("DOMContentLoaded", () => {
  startPlayers();
  setInterval(tick, 1000);
  const every = Number(document.body.dataset.refresh);
  const button = document.getElementById("pause");
  if (!every || !button) return;
  button.hidden = false;
  paused = sessionStorage.getItem("paused") === "1";
  const say = () => {
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on refreshing" : `Refreshing every ${every} s: pause`;
  };
  say();
  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "1" : "0");
    say();
    if (!paused) refresh();
  });
  setInterval(refresh, every * 1000);
});
