// Interactive features of a page: filter, image size, theme, chart values under the pointer, epochs of the fixed samples,
// reload while a program runs, and a viewer that compares two images of a card across a divider. Without the script, every
// image is shown and links to its file.
"use strict";

const byId = (id) => document.getElementById(id);

// Settings are stored for all pages, or with `ofPage` for this page in this tab.
const ofPage = true;

function remember(key, value, onePage = false) {
  try {
    if (onePage) sessionStorage.setItem(location.pathname + key, value);
    else localStorage.setItem(key, value);
  } catch {} // a browser without storage for local files
}

function recall(key, onePage = false) {
  try {
    return onePage ? sessionStorage.getItem(location.pathname + key) : localStorage.getItem(key);
  } catch {
    return null;
  }
}

// Keeps a section open or closed when the page is reloaded.
function foldable(details) {
  if (recall("closed", ofPage)) details.open = false;
  details.ontoggle = () => remember("closed", details.open ? "" : "1", ofPage);
}

// Before the page is shown, to avoid a flash of the other theme.
if (recall("theme")) document.documentElement.dataset.theme = recall("theme");

function themes() {
  const data = document.documentElement.dataset;
  byId("theme").onclick = () => {
    const now = data.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    data.theme = now === "dark" ? "light" : "dark";
    remember("theme", data.theme);
  };
}

function sizes(main) {
  const size = byId("size");
  const apply = () => main.style.setProperty("--zoom", 2 ** Number(size.value));
  size.value = recall("size") ?? 0;
  size.oninput = () => {
    remember("size", size.value);
    apply();
  };
  apply();
}

// Returns a function that lists the cards that match the filter, in order.
function filter(main) {
  const cards = [...main.children];
  const names = cards.map((card) => card.querySelector("h2").textContent.toLowerCase());
  let shown = cards;
  const apply = () => {
    const words = byId("filter").value.toLowerCase().split(/\s+/);
    shown = cards.filter((card, index) => {
      card.hidden = !words.every((word) => names[index].includes(word));
      return !card.hidden;
    });
    byId("count").value = `${shown.length} of ${cards.length}`;
  };
  byId("filter").oninput = apply;
  byId("filter").hidden = byId("count").hidden = !cards.length;
  apply(); // a reloaded page keeps the filter text
  return () => shown;
}

function viewer(main, shownCards) {
  const dialog = byId("viewer");
  const stage = byId("stage");
  const images = [new Image(), new Image()];
  const selects = [byId("before"), byId("after")];
  const labels = stage.querySelectorAll("span");
  let card = null;
  let wanted = []; // the names of the two visuals, the same for every card

  const cardImages = () => [...card.querySelectorAll("img")];
  const nameOf = (image) => image.closest("figure").querySelector("figcaption").firstChild.textContent.trim();
  const cards = () => (card.parentElement === main ? shownCards() : [...card.parentElement.children]);

  stage.prepend(...images);
  const cut = (percent) => {
    byId("cut").value = percent;
    stage.style.setProperty("--cut", `${byId("cut").value}%`);
  };

  const show = () => {
    const all = cardImages();
    const names = all.map(nameOf);
    const chosen = wanted.map((name, side) => Math.max(0, names.includes(name) ? names.indexOf(name) : Math.min(side, all.length - 1)));
    images.forEach((image, side) => {
      const source = all[chosen[side]];
      image.src = source.src;
      image.alt = source.alt;
      image.className = source.className;
      labels[side].textContent = names[chosen[side]];
      selects[side].replaceChildren(...names.map((name, index) => new Option(name, name, false, index === chosen[side])));
    });
    stage.style.setProperty("--ratio", ratio(all[chosen[0]]));
    byId("name").textContent = card.querySelector("h2").textContent;
    byId("place").textContent = `${cards().indexOf(card) + 1} / ${cards().length}`;
    for (const near of [neighbor(1), neighbor(-1)]) {
      if (near) for (const image of near.querySelectorAll("img")) if (wanted.includes(nameOf(image))) new Image().src = image.src;
    }
  };

  const ratio = (image) => image.getAttribute("width") / image.getAttribute("height");
  const neighbor = (steps) => cards()[cards().indexOf(card) + steps];
  const go = (next) => {
    if (!next) return;
    card = next;
    show();
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("article a:has(img)");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    card = link.closest("article");
    const names = cardImages().map(nameOf);
    const clicked = names.indexOf(nameOf(link.querySelector("img")));
    wanted = [names[0], names[clicked || Math.min(1, names.length - 1)]];
    cut(50);
    show();
    dialog.showModal();
  });
  selects.forEach((select, side) => {
    select.onchange = () => {
      wanted[side] = select.value;
      show();
    };
  });
  byId("cut").oninput = () => cut(byId("cut").value);
  byId("previous").onclick = () => go(neighbor(-1));
  byId("next").onclick = () => go(neighbor(1));
  byId("close").onclick = () => dialog.close();
  dialog.onclose = () => card.scrollIntoView({ block: "nearest" });

  const drag = (event) => {
    if (!event.buttons) return;
    const area = stage.getBoundingClientRect();
    cut(((event.clientX - area.left) / area.width) * 100);
  };
  stage.onpointerdown = (event) => {
    stage.setPointerCapture(event.pointerId);
    drag(event);
  };
  stage.onpointermove = drag;

  dialog.addEventListener("keydown", (event) => {
    const turn = {
      ArrowLeft: () => go(neighbor(-1)),
      ArrowRight: () => go(neighbor(1)),
      Home: () => go(cards()[0]),
      End: () => go(cards().at(-1)),
      ArrowUp: () => cut(Number(byId("cut").value) + 5),
      ArrowDown: () => cut(Number(byId("cut").value) - 5),
      " ": () => cut(Number(byId("cut").value) < 50 ? 100 : 0),
    }[event.key];
    if (!turn || event.target.tagName === "SELECT" || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    turn();
  });
}

// Shows the values of a chart's curves under the pointer. The attributes of the SVG give the ranges of its axes.
function values(charts) {
  const numbers = (text) => text.split(" ").map(Number);
  charts.addEventListener("pointermove", (event) => {
    const plot = event.target.closest("svg");
    if (!plot) return;
    const figure = plot.parentElement;
    const [left, bottom, right, top] = numbers(plot.dataset.area);
    const [x0, x1] = numbers(plot.dataset.x);
    const [y0, y1] = numbers(plot.dataset.y);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse()).x;
    const nearest = [...plot.querySelectorAll("g:not(.grid)")].map((curve) =>
      [...curve.querySelectorAll(".line")]
        .flatMap((line) => [...line.points])
        .reduce((best, point) => (Math.abs(point.x - at) < Math.abs(best.x - at) ? point : best), { x: Infinity }),
    );
    const x = Math.min(...nearest.map((point) => point.x));
    if (!Number.isFinite(x)) return;
    const shown = nearest.map((point) => (y0 + ((point.y - bottom) / (top - bottom)) * (y1 - y0)).toPrecision(4));
    const cursor = plot.querySelector(".cursor") ?? plot.appendChild(document.createElementNS(plot.namespaceURI, "line"));
    for (const [name, value] of Object.entries({ class: "cursor", x1: x, x2: x, y1: top, y2: bottom })) cursor.setAttribute(name, value);
    const readout = figure.querySelector("output") ?? figure.querySelector("figcaption").appendChild(document.createElement("output"));
    readout.value = `${(x0 + ((x - left) / (right - left)) * (x1 - x0)).toPrecision(4)}: ${shown.join(" · ")}`;
  });
  charts.addEventListener("pointerout", (event) => {
    const figure = event.target.closest(".chart");
    if (figure?.contains(event.relatedTarget)) return;
    figure?.querySelectorAll(".cursor, output").forEach((element) => element.remove());
  });
}

// Shows the translations of the fixed samples at the epoch of the slider. A reloaded page keeps the epoch, or shows the newest.
function samples(section) {
  const slider = section.querySelector("input");
  if (!slider) return;
  const epochs = section.dataset.epochs.split(" ");
  const at = (text) => text.replace(/epoch\d+(_\d+_\w+\.png)$/, `epoch${epochs[slider.value]}$1`);
  const apply = () => {
    for (const image of section.querySelectorAll("img")) image.parentElement.href = image.src = at(image.src);
    section.querySelector("output").value = Number(epochs[slider.value]);
  };
  slider.oninput = () => {
    apply();
    remember("epoch", slider.value === slider.max ? "" : epochs[slider.value], ofPage);
  };
  const chosen = epochs.indexOf(recall("epoch", ofPage));
  if (chosen >= 0) slider.value = chosen;
  apply();
  slider.parentElement.hidden = false;
}

// The place in the page: an element in view and its distance from the top. New cards above it do not move it.
const place = {
  elements: () => [...document.querySelectorAll("article, .chart, .samples")],
  rows: () => [...document.querySelectorAll(".samples .cards, .charts")], // on a narrow screen they scroll sideways
  save() {
    remember("sideways", JSON.stringify(place.rows().map((row) => row.scrollLeft)), ofPage);
    const elements = scrollY > 0 ? place.elements() : [];
    const element = elements.find((each) => each.getBoundingClientRect().bottom > 0);
    if (element) remember("place", JSON.stringify([element.className, heading(element), element.getBoundingClientRect().top]), ofPage);
  },
  restore() {
    const sideways = JSON.parse(recall("sideways", ofPage) || "[]");
    place.rows().forEach((row, index) => (row.scrollLeft = sideways[index] ?? 0));
    const [kind, name, top] = JSON.parse(recall("place", ofPage) || "[]");
    remember("place", "", ofPage);
    const element = place.elements().find((each) => each.className === kind && heading(each) === name);
    if (!element) return;
    const style = document.documentElement.style;
    style.overflowAnchor = "none"; // the browser must not correct the place as well
    const align = (frames) => {
      scrollBy(0, element.getBoundingClientRect().top - top);
      if (frames > 0) requestAnimationFrame(() => align(frames - 1)); // cards get their heights when they come into view
      else style.overflowAnchor = "";
    };
    align(10);
  },
};
const heading = (element) => element.querySelector("h2, h3, b").textContent;

// Reloads the page of a running program. After a long time without an update, the page says so: the run may have been killed.
function reload() {
  const { running, updated, patience, reload: seconds } = document.body.dataset;
  if (running !== "true") return;
  history.scrollRestoration = "manual";
  window.addEventListener("pagehide", place.save);
  let touched = 0;
  for (const name of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove"])
    document.addEventListener(name, () => (touched = Date.now()), { passive: true });
  const check = () => {
    const silent = Date.now() / 1000 - updated > patience;
    if (silent) {
      document.body.dataset.silent = "";
      document.querySelector('[data-fact="status"] dd').textContent = `no update since ${new Date(updated * 1000).toLocaleString()}`;
    }
    return silent;
  };
  let due = Date.now() + seconds * 1000 * (check() ? 4 : 1);
  setInterval(() => {
    check();
    if (Date.now() < due || Date.now() - touched < seconds * 200 || document.hidden || byId("viewer").open) return;
    due = Infinity;
    location.reload();
  }, seconds * 100);
}

document.addEventListener("DOMContentLoaded", () => {
  const main = document.querySelector("main");
  const shownCards = filter(main);
  themes();
  sizes(main);
  viewer(main, shownCards);
  document.querySelectorAll(".charts").forEach(values);
  document.querySelectorAll(".samples").forEach(samples);
  document.querySelectorAll("details").forEach(foldable);
  place.restore();
  reload();
  document.querySelector(".tools").hidden = false;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select") || byId("viewer").open) return;
    event.preventDefault();
    byId("filter").focus();
  });
});
