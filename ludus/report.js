"use strict";
// The report's page. Whatever a model wrote reaches the page as text nodes only, never as markup.

const tip = document.getElementById("tip");

function make(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.includes("-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function showTip(box, head, rows) {
  const list = make("dl");
  for (const [name, value, colour] of rows) {
    const swatch = colour === undefined ? null : make("span", { className: `swatch swatch-${colour}` });
    list.append(make("dt", {}, swatch, name), make("dd", {}, value));
  }
  tip.replaceChildren(make("b", {}, head), list);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.max(6, Math.min(box.left + box.width / 2 - width / 2, innerWidth - width - 6));
  const above = box.top - height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
}

function hideTip() {
  tip.hidden = true;
}

// Curves: the nearest point under the pointer, with all values there.

for (const svg of document.querySelectorAll("svg.chart")) {
  const chart = JSON.parse(svg.dataset.chart);
  const cursor = svg.querySelector(".cursor");
  const space = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes) => {
    const node = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  svg.addEventListener("pointermove", (event) => {
    if (!chart.points.length) return;
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const at = (event.clientX - box.left) / scale;
    const near = chart.points.reduce((best, point) => (Math.abs(point[1] - at) < Math.abs(best[1] - at) ? point : best));
    const [x, drawn, values] = near;
    const [, top, , bottom] = chart.plot;
    cursor.replaceChildren(
      shape("line", { x1: drawn, x2: drawn, y1: top, y2: bottom }),
      ...values
        .filter((value) => value[3] >= top - 1 && value[3] <= bottom + 1)
        .map((value) => shape("circle", { class: `dot-${value[0]}`, cx: drawn, cy: value[3], r: 4.5 })),
    );
    const place = { left: box.left + drawn * scale, width: 0, top: box.top + top * scale, bottom: box.top + bottom * scale };
    showTip(place, `${chart.x} ${x}`, values.map(([colour, name, text]) => [name, text, colour]));
  });
  svg.addEventListener("pointerleave", () => {
    cursor.replaceChildren();
    hideTip();
  });
}

// Episodes: filters, the list, and one episode as turns and as tokens.

const episodes = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("list");
const reader = document.getElementById("episode");
let current = null;
let colourBy = "advantage";

function number(value, digits = 4) {
  return value === null || value === undefined ? "none" : Number(value.toFixed(digits)).toString();
}

function signed(value) {
  return value === null || value === undefined ? "none" : (value > 0 ? "+" : "") + number(value, 3);
}

function prompt(episode) {
  const first = episode.messages.find((message) => message.role === "user") || episode.messages[0];
  return first ? first.content : episode.task;
}

function outcome(judged) {
  const name = judged.outcome.startsWith("no") ? "none" : judged.outcome;
  return make("span", { className: `outcome outcome-${name}` }, judged.outcome);
}

const largest = (() => {
  const sizes = [];
  for (const episode of episodes) {
    for (const trajectory of episode.trajectories) {
      for (const value of trajectory.advantages || []) if (value) sizes.push(Math.abs(value));
    }
  }
  sizes.sort((a, b) => a - b);
  return sizes.length ? sizes[Math.floor(0.98 * (sizes.length - 1))] : 1;
})();

function paint(node, trajectory, i) {
  node.style.background = "";
  if (trajectory.mask[i] !== "1") return;
  const veil = (name, strength) => {
    node.style.background = `rgb(var(--${name}) / ${(0.1 + 0.6 * Math.min(1, strength)).toFixed(3)})`;
  };
  if (colourBy === "advantage") {
    const value = trajectory.advantages ? trajectory.advantages[i] : null;
    if (value) veil(value > 0 ? "good" : "bad", Math.abs(value) / largest);
  } else if (colourBy === "surprise") {
    const value = trajectory.logprobs[i];
    if (value !== null) veil("surprise", -value / 4);
  } else {
    node.style.background = `color-mix(in srgb, var(--c${((trajectory.versions[i] % 6) + 6) % 6}) 35%, transparent)`;
  }
}

function scale() {
  const bar = (background) => {
    const node = make("i");
    node.style.background = background;
    return node;
  };
  if (colourBy === "advantage") {
    const steps = "rgb(var(--bad) / .7), var(--soft), rgb(var(--good) / .7)";
    return [`−${number(largest, 2)}`, bar(`linear-gradient(90deg, ${steps})`), `+${number(largest, 2)}`];
  }
  if (colourBy === "surprise") {
    return ["certain", bar("linear-gradient(90deg, rgb(var(--surprise) / .1), rgb(var(--surprise) / .7))"), "−log p ≥ 4"];
  }
  return ["one colour for each policy version"];
}

function visible(text) {
  if (text === "") return "∅";
  return text.replace(/\n/g, "↵\n").replace(/\t/g, "⇥\t").replace(/\r/g, "␍");
}

function describe(trajectory, i) {
  const sampled = trajectory.mask[i] === "1";
  const rows = [
    ["position", String(i)],
    ["token id", String(trajectory.ids[i])],
    ["mask", sampled ? "true: sampled by the policy" : "false: given to the policy"],
  ];
  if (sampled) {
    const logprob = trajectory.logprobs[i];
    rows.push(["log-probability", number(logprob)]);
    if (logprob !== null) rows.push(["probability", `${number(100 * Math.exp(logprob), 2)}%`]);
    rows.push(["advantage", trajectory.advantages ? signed(trajectory.advantages[i]) : "not a training episode"]);
    rows.push(...because(trajectory, i));
    rows.push(["policy version", String(trajectory.versions[i])]);
    if (trajectory.kept) rows.push(["tokens kept", String(trajectory.kept[i])]);
  }
  return rows;
}

// Why a token got its gradient: only the terms that the loss has.
function because(trajectory, i) {
  const why = trajectory.why || {};
  const rows = [];
  if (why.gradient) {
    const way = why.gradient[i] < 0 ? ": likelier" : why.gradient[i] > 0 ? ": less likely" : "";
    rows.push(["gradient", `${why.gradient[i]}${way}`]);
  }
  if (why.weight) rows.push(["weight in the loss", String(why.weight[i])]);
  if (why.ratio) rows.push(["ratio", String(why.ratio[i])]);
  if (why.clip && why.clip[i]) rows.push(["clipped", why.clip[i] > 0 ? "at the upper bound" : "at the lower bound"]);
  if (why.correction) rows.push(["correction", String(why.correction[i])]);
  if (why.kl) rows.push(["KL term", String(why.kl[i])]);
  if (why.whole) rows.push(["term of the whole distribution", String(why.whole[i])]);
  return rows;
}

function tokens(trajectory) {
  const box = make("div", { className: "tokens", tabIndex: 0, "aria-label": "Tokens; arrow keys move" });
  const rewards = new Map(trajectory.steps.map(([, end, reward]) => [end - 1, reward]));
  const spans = trajectory.text.map((text, i) => {
    const kind = trajectory.mask[i] === "1" ? "token sampled" : "token";
    const node = make("span", { className: kind }, visible(text));
    node.dataset.i = i;
    paint(node, trajectory, i);
    box.append(node);
    if (rewards.get(i)) {
      box.append(make("span", { className: rewards.get(i) < 0 ? "paid loss" : "paid" }, `reward ${signed(rewards.get(i))}`));
    }
    return node;
  });
  let here = -1;
  const show = (i) => {
    if (spans[here]) spans[here].classList.remove("here");
    here = i;
    if (!spans[here]) return hideTip();
    spans[here].classList.add("here");
    const boxes = spans[here].getClientRects();
    showTip(boxes[0] || spans[here].getBoundingClientRect(), JSON.stringify(trajectory.text[i]), describe(trajectory, i));
  };
  const pointed = (event) => {
    const node = event.target.closest(".token");
    if (node) show(Number(node.dataset.i));
  };
  box.addEventListener("pointerover", pointed);
  box.addEventListener("click", pointed);
  box.addEventListener("pointerleave", () => show(-1));
  box.addEventListener("blur", () => show(-1));
  box.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(Math.max(0, Math.min(spans.length - 1, here + move)));
    spans[here].scrollIntoView({ block: "nearest" });
  });
  box.repaint = () => spans.forEach((node, i) => paint(node, trajectory, i));
  return box;
}

function turn(message) {
  const content = make("div", { className: "content" });
  let end = 0;
  for (const call of message.role === "assistant" ? message.content.matchAll(/<([\w-]+)>[^]*?<\/\1>/g) : []) {
    content.append(message.content.slice(end, call.index), make("span", { className: "call" }, call[0]));
    end = call.index + call[0].length;
  }
  content.append(message.content.slice(end));
  const role = make("div", { className: "role" }, message.role);
  return make("div", { className: `turn turn-${message.role.replace(/\W/g, "")}` }, role, content);
}

function facts(episode) {
  const paths = new Set(episode.parts.map((part) => part.path));
  const named = Object.entries(episode.rewards).filter(([name]) => !paths.has(name));
  const rewards = named.map(([name, value]) => `${name} ${number(value)}`);
  const rows = [
    ["reward", number(episode.reward)],
    ["rewards by name", rewards.length > 1 ? rewards.join(", ") : null],
    ["ended by", episode.stop],
    ["stored at", episode.at],
    ["environment", episode.env],
    ["task", episode.task],
    ["seed", episode.seed],
    ["seconds", number(episode.seconds, 2)],
  ].filter((row) => row[1] !== null && row[1] !== "");
  return make("dl", { className: "facts" }, ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function parts(episode) {
  if (!episode.parts.length) return null;
  const titles = ["verdict of", "outcome", "value", "reason"];
  const head = make("tr", {}, ...titles.map((title) => make("th", { scope: "col", className: title === "value" ? "number" : "" }, title)));
  const rows = episode.parts.map((part) => {
    const name = make("th", { scope: "row" }, part.name);
    name.style.paddingLeft = `${1.2 * part.depth}em`;
    const value = part.value === null ? "–" : number(part.value);
    const cells = [outcome(part), value, part.reason].map((cell) => make("td", {}, cell));
    cells[1].className = "number";
    return make("tr", {}, name, ...cells);
  });
  return make("div", { className: "scroll" }, make("table", { className: "parts" }, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function evidence(episode) {
  const found = { ...episode.evidence };
  for (const part of episode.parts) if (Object.keys(part.evidence).length) found[part.path] = part.evidence;
  if (!Object.keys(found).length) return null;
  return make("details", {}, make("summary", {}, "Evidence"), make("pre", {}, JSON.stringify(found, null, 2)));
}

function mates(episode) {
  const group = episodes.filter((other) => other.group === episode.group && other.at === episode.at);
  if (group.length < 2) return null;
  const buttons = group.map((other) => {
    const button = make("button", { type: "button", "aria-current": String(other === episode) }, number(other.reward, 3));
    button.addEventListener("click", () => open(other));
    return button;
  });
  return make("div", { className: "mates" }, "Rewards of its group, as far as stored:", ...buttons);
}

function colours(boxes) {
  const legend = make("span", { className: "scale" }, ...scale());
  const choice = make("select", { id: "colour-by" });
  for (const name of ["advantage", "surprise", "version"]) choice.append(make("option", { selected: name === colourBy }, name));
  choice.addEventListener("change", () => {
    colourBy = choice.value;
    legend.replaceChildren(...scale());
    boxes.forEach((box) => box.repaint());
  });
  const grey = make("span", {}, "Grey text was given to the policy; what it sampled has a background.");
  return make("div", { className: "colours" }, make("label", {}, "colour by", choice), legend, grey);
}

function open(episode) {
  hideTip();
  current = episode;
  for (const button of list.querySelectorAll("button")) {
    button.setAttribute("aria-current", String(episodes[button.dataset.i] === episode));
  }
  if (!episode) {
    reader.replaceChildren(make("p", { className: "muted" }, "No episode passes these filters."));
    return;
  }
  const head = make("div", {}, outcome(episode), episode.reason ? ` ${episode.reason}` : "");
  const boxes = episode.trajectories.map(tokens);
  const streams = [];
  episode.trajectories.forEach((trajectory, i) => {
    if (episode.trajectories.length > 1) {
      const fork = trajectory.parent === null ? "" : `, forked from ${trajectory.parent + 1} at token ${trajectory.fork}`;
      streams.push(make("p", { className: "muted" }, `Trajectory ${i + 1}, seat ${trajectory.seat}${fork}`));
    }
    streams.push(boxes[i]);
  });
  reader.replaceChildren(
    ...[
      head,
      facts(episode),
      parts(episode),
      evidence(episode),
      mates(episode),
      make("h3", {}, "Turns"),
      ...episode.messages.map(turn),
      boxes.length ? make("h3", {}, "Tokens") : null,
      boxes.length ? colours(boxes) : null,
      ...streams,
    ].filter((node) => node !== null),
  );
}

function startReader() {
  const filters = Object.fromEntries(["at", "env", "outcome", "text"].map((name) => [name, document.getElementById(`filter-${name}`)]));
  for (const name of ["at", "env", "outcome"]) {
    const values = [...new Set(episodes.map((episode) => episode[name]))];
    filters[name].append(make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
    filters[name].parentElement.hidden = values.length < 2;
  }
  const training = episodes.filter((episode) => episode.trajectories.some((trajectory) => trajectory.advantages));
  if (training.length) filters.at.value = training[training.length - 1].at;
  const apply = () => {
    const text = filters.text.value.toLowerCase();
    const passes = (episode) =>
      ["at", "env", "outcome"].every((name) => !filters[name].value || episode[name] === filters[name].value) &&
      (!text || episode.messages.some((message) => message.content.toLowerCase().includes(text)));
    const found = episodes.filter(passes);
    list.replaceChildren(
      ...found.map((episode) => {
        const line = make("span", { className: "line" }, outcome(episode), `${number(episode.reward, 3)} · ${episode.at}`);
        const button = make("button", { type: "button" }, make("span", { className: "prompt" }, prompt(episode)), line);
        button.dataset.i = episodes.indexOf(episode);
        button.addEventListener("click", () => open(episode));
        return make("li", {}, button);
      }),
    );
    document.getElementById("count").textContent = `${found.length} of ${episodes.length} episodes`;
    const telling = (episode) => episode.trajectories.some((trajectory) => (trajectory.advantages || []).some((value) => value));
    open(found.includes(current) ? current : found.find(telling) || found[0] || null);
  };
  for (const filter of Object.values(filters)) filter.addEventListener(filter === filters.text ? "input" : "change", apply);
  apply();
}

if (episodes.length) startReader();
