// What a page can do beyond being read: a filter, a size, a theme, values under the pointer, and a viewer that compares two
// pictures of a card across a divider. Without it, every picture is there and is a link to its file.
"use strict";

const byId = (id) => document.getElementById(id);

function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {} // a browser that keeps nothing for local files
}

function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

// Before the page is shown, so that it does not flash in the other theme.
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

// The cards that the filter lets through, in order.
function filter(main) {
  const cards = [...main.children];
  const names = cards.map((card) => card.querySelector("h2").textContent.toLowerCase());
  let shown = cards;
  const apply = () => {
    const words = byId("filter").value.toLowerCase().split(/\s+/);
    shown = cards.filter((card, place) => {
      card.hidden = !words.every((word) => names[place].includes(word));
      return !card.hidden;
    });
    byId("count").value = `${shown.length} of ${cards.length}`;
  };
  byId("filter").oninput = apply;
  apply(); // a reloaded page keeps what was typed
  return () => shown;
}

function viewer(main, shownCards) {
  const dialog = byId("viewer");
  const stage = byId("stage");
  const images = [new Image(), new Image()];
  const selects = [byId("before"), byId("after")];
  const labels = stage.querySelectorAll("span");
  let card = null;
  let wanted = []; // the names of the two visuals, kept from card to card

  const pictures = () => [...card.querySelectorAll("img")];
  const nameOf = (picture) => picture.closest("figure").querySelector("figcaption").textContent;

  stage.prepend(...images);
  const cut = (percent) => {
    byId("cut").value = percent;
    stage.style.setProperty("--cut", `${byId("cut").value}%`);
  };

  const show = () => {
    const all = pictures();
    const names = all.map(nameOf);
    const chosen = wanted.map((name, side) => Math.max(0, names.includes(name) ? names.indexOf(name) : Math.min(side, all.length - 1)));
    images.forEach((image, side) => {
      const picture = all[chosen[side]];
      image.src = picture.src;
      image.alt = picture.alt;
      image.className = picture.className;
      labels[side].textContent = names[chosen[side]];
      selects[side].replaceChildren(...names.map((name, place) => new Option(name, name, false, place === chosen[side])));
    });
    stage.style.setProperty("--ratio", ratio(all[chosen[0]]));
    byId("name").textContent = card.querySelector("h2").textContent;
    byId("place").textContent = `${shownCards().indexOf(card) + 1} / ${shownCards().length}`;
    for (const near of [neighbour(1), neighbour(-1)]) {
      if (near) for (const picture of near.querySelectorAll("img")) if (wanted.includes(nameOf(picture))) new Image().src = picture.src;
    }
  };

  const ratio = (picture) => picture.getAttribute("width") / picture.getAttribute("height");
  const neighbour = (steps) => shownCards()[shownCards().indexOf(card) + steps];
  const go = (next) => {
    if (!next) return;
    card = next;
    show();
  };

  main.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    card = link.closest("article");
    const names = pictures().map(nameOf);
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
  byId("previous").onclick = () => go(neighbour(-1));
  byId("next").onclick = () => go(neighbour(1));
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
      ArrowLeft: () => go(neighbour(-1)),
      ArrowRight: () => go(neighbour(1)),
      Home: () => go(shownCards()[0]),
      End: () => go(shownCards().at(-1)),
      ArrowUp: () => cut(Number(byId("cut").value) + 5),
      ArrowDown: () => cut(Number(byId("cut").value) - 5),
      " ": () => cut(Number(byId("cut").value) < 50 ? 100 : 0),
    }[event.key];
    if (!turn || event.target.tagName === "SELECT" || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    turn();
  });
}

// The values of a chart's curves under the pointer. How its axes lie is written on the drawing.
function values(charts) {
  const numbers = (text) => text.split(" ").map(Number);
  charts.addEventListener("pointermove", (event) => {
    const drawing = event.target.closest("svg");
    if (!drawing) return;
    const figure = drawing.parentElement;
    const [left, bottom, right, top] = numbers(drawing.dataset.area);
    const [x0, x1] = numbers(drawing.dataset.x);
    const [y0, y1] = numbers(drawing.dataset.y);
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse()).x;
    const nearest = [...drawing.querySelectorAll("g:not(.grid)")].map((curve) =>
      [...curve.querySelectorAll(".line")]
        .flatMap((line) => [...line.points])
        .reduce((best, point) => (Math.abs(point.x - at) < Math.abs(best.x - at) ? point : best), { x: Infinity }),
    );
    const x = Math.min(...nearest.map((point) => point.x));
    if (!Number.isFinite(x)) return;
    const told = nearest.map((point) => (y0 + ((point.y - bottom) / (top - bottom)) * (y1 - y0)).toPrecision(4));
    const cursor = drawing.querySelector(".cursor") ?? drawing.appendChild(document.createElementNS(drawing.namespaceURI, "line"));
    for (const [name, value] of Object.entries({ class: "cursor", x1: x, x2: x, y1: top, y2: bottom })) cursor.setAttribute(name, value);
    const readout = figure.querySelector("output") ?? figure.querySelector("figcaption").appendChild(document.createElement("output"));
    readout.value = `${(x0 + ((x - left) / (right - left)) * (x1 - x0)).toPrecision(4)}: ${told.join(" · ")}`;
  });
  charts.addEventListener("pointerout", (event) => {
    const figure = event.target.closest(".chart");
    if (figure?.contains(event.relatedTarget)) return;
    figure?.querySelectorAll(".cursor, output").forEach((element) => element.remove());
  });
}

document.addEventListener("DOMContentLoaded", () => {
  const main = document.querySelector("main");
  const shownCards = filter(main);
  themes();
  sizes(main);
  viewer(main, shownCards);
  document.querySelectorAll(".charts").forEach(values);
  document.querySelector(".tools").hidden = false;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select") || byId("viewer").open) return;
    event.preventDefault();
    byId("filter").focus();
  });
});
