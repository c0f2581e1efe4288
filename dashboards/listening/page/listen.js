// The page of a listener: shows one form after another. The next comes only when the server has stored the answers.
"use strict";

const part = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

let shown = null; // the page that is shown: its number, form, players, and what was heard

function notice(text, isProblem = false) {
  part("notice").textContent = text;
  part("notice").classList.toggle("problem", isProblem);
}

async function ask(address, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(address, { cache: "no-store", ...options });
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

// ---- clips

function pauseOthers(player) {
  for (const other of shown.players) if (other.audio !== player.audio) other.audio.pause();
}

function showState(player) {
  const { audio, state, button } = player;
  const isPlaying = !audio.paused && !audio.ended;
  button.classList.toggle("playing", isPlaying);
  const heard = player.heard ? "heard" : "not heard yet";
  const seconds = Number.isFinite(audio.duration) ? `, ${Math.floor(audio.currentTime)} of ${Math.ceil(audio.duration)} s` : "";
  state.textContent = player.failed ? "could not be loaded: press to try again" : isPlaying ? `playing${seconds}` : heard;
}

async function toggle(player) {
  if (player.failed) {
    player.failed = false;
    player.audio.load();
  }
  if (!player.audio.paused && !player.audio.ended) return player.audio.pause();
  pauseOthers(player);
  try {
    await player.audio.play();
  } catch (problem) {
    if (problem.name !== "AbortError") showState(player);
  }
}

function makePlayer(clip, place) {
  const audio = make("audio", { preload: "auto", src: `audio/${clip.token}.wav` });
  const state = make("span", { className: "state" });
  const button = make("button", { type: "button" }, `▶ ${clip.label}`, state);
  const player = { audio, state, button, heard: false, failed: false, place };
  let reached = 0; // seconds that were heard without a jump
  audio.addEventListener("timeupdate", () => {
    if (audio.currentTime <= reached + 1.5) reached = Math.max(reached, audio.currentTime);
    showState(player);
  });
  audio.addEventListener("ended", () => {
    player.heard ||= audio.duration - reached < 1;
    showState(player);
    update();
  });
  for (const event of ["play", "pause", "loadedmetadata"]) audio.addEventListener(event, () => showState(player));
  audio.addEventListener("error", () => {
    player.failed = true;
    showState(player);
  });
  button.addEventListener("click", () => toggle(player));
  showState(player);
  return player;
}

// ---- questions

function makeWords(words) {
  const spans = words.map((word) => make("span", {}, word));
  return make("p", { className: words.length > 2 ? "words fifths" : "words" }, ...spans);
}

function makeOptions(field, number) {
  const group = `field-${number}`;
  const options = field.options.map((text, place) => {
    const input = make("input", { type: "radio", name: group, value: String(place), disabled: true });
    input.addEventListener("change", update);
    return make("label", {}, input, text);
  });
  const parts = [make("legend", {}, field.question), make("div", { className: "options" }, ...options)];
  if (field.words.length) parts.push(makeWords(field.words));
  const element = make("fieldset", {}, ...parts);
  const answer = () => {
    const chosen = element.querySelector("input:checked");
    return chosen ? Number(chosen.value) : null;
  };
  return { element, answer };
}

function makeSlider(field) {
  const input = make("input", { type: "range", min: "0", max: "100", value: "50", step: "1", disabled: true });
  input.setAttribute("aria-label", field.question);
  const value = make("output", {}, "–");
  let isMoved = false;
  const moved = () => {
    isMoved = true;
    value.textContent = input.value;
    update();
  };
  for (const event of ["input", "change", "click"]) input.addEventListener(event, moved);
  const element = make(
    "fieldset", {},
    make("legend", {}, field.question),
    make("div", { className: "slider" }, input, value),
    makeWords(field.words),
  );
  return { element, answer: () => (isMoved ? Number(input.value) : null) };
}

// ---- pages

function update() {
  if (!shown || shown.isSending) return;
  const isHeard = shown.players.every((player) => player.heard);
  for (const input of part("content").querySelectorAll("input")) input.disabled = !isHeard;
  const answers = shown.fields.map((field) => field.answer());
  const isComplete = isHeard && answers.every((answer) => answer !== null);
  part("next").disabled = !isComplete;
  if (!isHeard) notice(shown.players.length > 1 ? "Listen to every clip to the end first." : "Listen to the end first.");
  else notice(isComplete ? "" : "Now answer.");
}

function show(page) {
  if (shown) for (const player of shown.players) {
    player.audio.pause();
    player.audio.removeAttribute("src");
    player.audio.load(); // stops loading
  }
  const form = page.form;
  const players = form.clips.map(makePlayer);
  const fields = form.fields.map((field, number) => (field.kind === "slider" ? makeSlider(field) : makeOptions(field, number)));
  const sliders = form.fields.filter((field) => field.kind === "slider");
  shown = { step: page.step, players, fields, isSending: false };
  part("heading").textContent = form.heading;
  part("content").replaceChildren(
    ...form.paragraphs.map((text) => make("p", {}, text)),
    ...(players.length ? [make("div", { className: sliders.length ? "clips staying" : "clips" }, ...players.map((player) => player.button))] : []),
    ...fields.map((field) => field.element),
  );
  part("progress").max = page.of;
  part("progress").value = page.step;
  part("count").textContent = page.step < page.of ? `${page.step + 1} of ${page.of}` : "finished";
  part("next").hidden = !form.button;
  part("next").textContent = form.button || "";
  const isScale = fields.length === 1 && form.fields[0].kind === "options";
  const keys = [];
  if (players.length) keys.push(`${players.length > 1 ? "P, then P again for the next clip" : "P"}: play or pause`);
  if (isScale) keys.push(`1 to ${form.fields[0].options.length}: answer`);
  if (form.button) keys.push("Enter: next");
  part("keys").textContent = keys.length ? `Keys: ${keys.join("; ")}.` : "";
  window.scrollTo(0, 0);
  part("heading").focus({ preventScroll: true });
  notice("");
  update();
}

async function send() {
  if (!shown || shown.isSending || part("next").disabled) return;
  const page = shown;
  page.isSending = true;
  part("next").disabled = true;
  notice("Storing …");
  try {
    const next = await ask("answers", {
      step: page.step,
      answers: page.fields.map((field) => field.answer()),
      heard: page.players.filter((player) => player.heard).map((player) => player.place),
    });
    show(next);
  } catch (problem) {
    page.isSending = false;
    if (problem.message === "409" || problem.message === "400") return load(); // answered in another window
    update();
    notice("The answer is not stored yet. Check the connection, then press the button again.", true);
  }
}

async function load() {
  try {
    show(await ask("step"));
  } catch (problem) {
    notice("The page cannot be loaded. Check the connection, then reload it.", true);
  }
}

async function begin() {
  part("next").disabled = true;
  try {
    window.location.assign((await ask("begin", {})).address);
  } catch (problem) {
    part("next").disabled = false;
    notice("The study cannot be started. Try again later.", true);
  }
}

function nextPlayer() {
  const playing = shown.players.findIndex((player) => !player.audio.paused && !player.audio.ended);
  if (playing >= 0) return shown.players[playing];
  return shown.players.find((player) => !player.heard) || shown.players[0];
}

document.addEventListener("keydown", (event) => {
  if (!shown || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const isOnButton = event.target instanceof HTMLButtonElement;
  if (event.key === "Enter" && !isOnButton) {
    event.preventDefault();
    send();
  } else if (event.key.toLowerCase() === "p" && shown.players.length) {
    event.preventDefault();
    toggle(nextPlayer());
  } else if (/^[1-9]$/.test(event.key) && shown.fields.length === 1) {
    const input = part("content").querySelectorAll("input[type=radio]")[Number(event.key) - 1];
    if (input && !input.disabled) input.click();
  }
});

if (/\/listener\/[^/]+\/$/.test(window.location.pathname)) {
  part("next").disabled = true;
  part("next").addEventListener("click", send);
  load();
} else {
  part("next").addEventListener("click", begin);
}
