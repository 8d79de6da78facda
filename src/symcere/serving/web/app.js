"use strict";
// What the page shows is set as text, never as HTML: reviews and titles are strangers' words.

const $ = (id) => document.getElementById(id);
const LABELS = { user: "User id", items: "Item ids or titles, by comma", text: "What they want, in words" };
let chosen = 0; // the dial of the bundle
let asked = 0; // number of the newest question: an older answer is not shown

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function kind() {
  return document.querySelector("input[name=kind]:checked").value;
}

async function get(path, body) {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const more = body ? { method: "POST", body: JSON.stringify(body), headers: { ...headers, "content-type": "application/json" } } : { headers };
  const answer = await fetch(path, more);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error.message);
  return found;
}

function say(text, isError = false) {
  $("said").textContent = text;
  $("said").className = isError ? "error" : "";
}

async function idsOf(words) {
  const ids = [];
  for (const word of words.split(",").map((each) => each.trim()).filter(Boolean)) {
    const { items } = await get(`v1/search?k=1&q=${encodeURIComponent(word)}`);
    if (!items.length) throw new Error(`No item is called “${word}”.`);
    ids.push(items[0].item_id);
  }
  return ids;
}

async function recommend() {
  const words = $("words").value.trim();
  if (!words) return;
  const mine = ++asked;
  const dial = Number($("dial").value);
  const diversity = Number($("diversity").value);
  try {
    let found;
    let who = { user: words };
    if (kind() === "user") {
      found = await get(`v1/recommend?k=12&user_id=${encodeURIComponent(words)}&dial=${dial}&diversity=${diversity}`);
    } else {
      const items = kind() === "items" ? await idsOf(words) : [];
      who = { items, text: kind() === "text" ? words : "" };
      found = await get("v1/recommend", { k: 12, dial, diversity, ...who });
    }
    if (mine !== asked) return;
    $("cards").replaceChildren(...found.items.map((item) => card(item, found.fallback ? null : who)));
    ring();
    say(found.fallback || `${found.items.length} recommendations, dial ${dial.toFixed(1)}.`);
  } catch (error) {
    if (mine !== asked) return;
    $("cards").replaceChildren();
    say(error.message, true);
  }
}

function card(item, who) {
  const made = make("li", undefined, "card");
  made.dataset.item = item.item_id;
  made.append(make("h2", item.title || item.item_id));
  const facts = [item.title ? item.item_id : "", item.category, `score ${item.score.toFixed(3)}`];
  made.append(make("p", facts.filter(Boolean).join(" · "), "id"));
  if (who) {
    const why = make("button", "Why?");
    why.type = "button";
    why.setAttribute("aria-expanded", "false");
    why.addEventListener("click", () => explain(made, why, who, item.item_id));
    made.append(why);
  }
  return made;
}

async function explain(made, button, who, item) {
  const there = made.querySelector(".why");
  if (there) {
    there.remove();
    made.classList.remove("wide");
    button.setAttribute("aria-expanded", "false");
    return;
  }
  button.disabled = true;
  try {
    const path = who.user ? `v1/explain?user_id=${encodeURIComponent(who.user)}&item_id=${encodeURIComponent(item)}` : "v1/explain";
    const reason = await get(path, who.user ? undefined : { ...who, item_id: item });
    made.append(reasons(reason));
    made.classList.add("wide");
    button.setAttribute("aria-expanded", "true");
  } catch (error) {
    say(error.message, true);
  }
  button.disabled = false;
}

function reasons(reason) {
  const box = make("div", undefined, "why");
  const parts = Object.entries(reason.parts);
  const size = parts.reduce((sum, [, value]) => sum + Math.abs(value), 0) || 1;
  const bar = make("div", undefined, "parts");
  const key = make("p", undefined, "key");
  for (const [name, value] of parts) {
    const piece = make("span", undefined, name);
    piece.style.width = `${(100 * Math.abs(value)) / size}%`;
    bar.append(piece);
    key.append(make("i", undefined, name), `${name} ${value.toFixed(3)}`);
  }
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", parts.map(([name, value]) => `${name} ${value.toFixed(3)}`).join(", "));
  box.append(bar, key, make("p", `The parts sum to the score as the dial was chosen, ${reason.score.toFixed(3)}.`, "key"));
  for (const [text] of reason.snippets) box.append(make("blockquote", text));
  const lists = make("div", undefined, "reasons");
  const because = reason.because.map(([id, title, value]) => [title || id, value]);
  for (const [title, rows] of [["Words of the item's reviews", reason.item_words], ["Words they wrote", reason.user_words], ["Because they chose", because]]) {
    if (!rows.length) continue;
    const list = make("ul");
    for (const [name, value] of rows.slice(0, 5)) {
      const row = make("li");
      row.append(make("span", name), make("span", value.toFixed(3)));
      list.append(row);
    }
    const column = make("div");
    column.append(make("h3", title), list);
    lists.append(column);
  }
  box.append(lists);
  return box;
}

function later(work, wait) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}

async function suggest() {
  const word = $("words").value.split(",").pop().trim();
  if (kind() === "text" || word.length < 2) return;
  try {
    const { users, items } = await get(`v1/search?k=8&q=${encodeURIComponent(word)}`);
    const names = kind() === "user" ? users : items.map((item) => item.item_id);
    const titles = new Map(items.map((item) => [item.item_id, item.title]));
    $("found").replaceChildren(
      ...names.map((name) => {
        const option = make("option", titles.get(name) || "");
        option.value = name;
        return option;
      }),
    );
  } catch {
    // suggestions are a help, not a duty
  }
}

function turned() {
  $("dial-value").textContent = Number($("dial").value).toFixed(1);
  $("diversity-value").textContent = Number($("diversity").value).toFixed(1);
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  recommend();
});
const again = later(recommend, 120);
for (const id of ["dial", "diversity"]) {
  $(id).addEventListener("input", () => {
    turned();
    again();
  });
}
$("reset").addEventListener("click", () => {
  $("dial").value = chosen;
  $("diversity").value = 0;
  turned();
  recommend();
});
$("words").addEventListener("input", later(suggest, 200));
for (const radio of document.querySelectorAll("input[name=kind]")) {
  radio.addEventListener("change", () => {
    $("words-label").textContent = LABELS[kind()];
    $("found").replaceChildren();
    $("words").value = "";
    $("words").focus();
  });
}

// The map: one circle an item; the view is moved and zoomed through the viewBox.

const view = { x: -1.05, y: -1.05, size: 2.1 };
const SVG = "http://www.w3.org/2000/svg";

function look() {
  $("map").setAttribute("viewBox", `${view.x} ${view.y} ${view.size} ${view.size}`);
  for (const dot of $("map").children) dot.setAttribute("r", 0.006 * view.size);
}

function zoom(by, x = view.x + view.size / 2, y = view.y + view.size / 2) {
  const size = Math.min(Math.max(view.size * by, 0.02), 4);
  view.x = x - ((x - view.x) * size) / view.size;
  view.y = y - ((y - view.y) * size) / view.size;
  view.size = size;
  look();
}

function at(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform($("map").getScreenCTM().inverse());
  return [point.x, point.y];
}

async function draw() {
  if (!$("map-box").open || $("map").children.length) return;
  try {
    const { items } = await get("v1/map?k=1500");
    for (const item of items) {
      const dot = document.createElementNS(SVG, "circle");
      dot.setAttribute("cx", item.x);
      dot.setAttribute("cy", -item.y);
      dot.dataset.item = item.item_id;
      dot.dataset.name = item.title || item.item_id;
      $("map").append(dot);
    }
    look();
    ring();
  } catch (error) {
    say(error.message, true);
  }
}

function ring() {
  const shown = new Set([...document.querySelectorAll(".card")].map((card) => card.dataset.item));
  for (const dot of $("map").children) dot.classList.toggle("on", shown.has(dot.dataset.item));
}

let held = null;
$("map-box").addEventListener("toggle", draw);
$("closer").addEventListener("click", () => zoom(0.7));
$("farther").addEventListener("click", () => zoom(1 / 0.7));
$("map").addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, ...at(event));
});
$("map").addEventListener("pointerdown", (event) => {
  held = { point: at(event), moved: false, item: event.target.dataset.item };
});
$("map").addEventListener("pointermove", (event) => {
  $("here").textContent = event.target.dataset.name || "";
  if (!held) return;
  const [x, y] = at(event);
  const [dx, dy] = [held.point[0] - x, held.point[1] - y];
  if (Math.hypot(dx, dy) > view.size / 200) held.moved = true;
  view.x += dx;
  view.y += dy;
  look();
});
$("map").addEventListener("pointerup", () => {
  if (held && !held.moved && held.item) {
    document.querySelector("input[value=items]").checked = true;
    $("words-label").textContent = LABELS.items;
    $("words").value = held.item;
    recommend();
  }
  held = null;
});
$("map").addEventListener("pointerleave", () => {
  held = null;
});

get("ready").then((about) => {
  chosen = about.dial;
  $("dial").value = chosen;
  turned();
  $("about").textContent = `${about.users.toLocaleString()} users, ${about.items.toLocaleString()} items; text read by ${about.encoder}; the dial was chosen at ${chosen}.`;
});
