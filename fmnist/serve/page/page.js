// The page: what is given is asked about at once, and again when another model answers.

import { showAnswer, showClasses, showNothing } from "./answer.js";
import { Board } from "./drawing.js";
import * as files from "./files.js";
import { link, showModel } from "./model.js";
import { CLASSES, showSamples } from "./samples.js";
import { Locked, Lost, Refusal, hasKey, predict, useKey } from "./server.js";
import { Watch } from "./status.js";

const AGAIN = 2000; // milliseconds until a question that had no answer is asked again
const TRIES = 5;
const find = (id) => document.getElementById(id);
let current = null; // the picture that was asked about last
let waiting = null; // [picture, since]: asked about as soon as the question before is answered
let busy = false;
let declined = false; // to give a key
let keyGiven = false; // in the dialog that closes

const board = new Board(find("board"), (since) => {
  find("undo").disabled = !board.canUndo;
  find("clear").disabled = board.isEmpty;
  find("hint").hidden = !board.isEmpty;
  complain("");
  if (!board.isEmpty) return ask(board.picture, since);
  current = waiting = null;
  showNothing();
});

/** One question at a time; of those that come meanwhile, only the latest. */
async function ask(picture, since = performance.now()) {
  current = picture;
  waiting = [picture, since];
  if (busy) return;
  busy = true;
  while (waiting) {
    const now = waiting;
    waiting = null;
    await answer(...now).catch(fail);
  }
  busy = false;
}

async function answer(picture, since) {
  if (watch.trouble || watch.status?.model === null) return; // asked once that is over
  try {
    const given = await predict(await picture.body(), picture.type);
    picture.tries = 0;
    if (!current) return; // cleared meanwhile
    showAnswer(given, picture.truth, since);
    complain("");
  } catch (error) {
    if (error instanceof Lost || error.status === 503) askAgain(picture);
    if (!(error instanceof Refusal)) throw error;
    if (error.status < 500 && picture.source !== null) showNothing();
    complain(picture.name ? error.message.replace(/^the picture:/, `${picture.name}:`) : error.message);
    if (error.status === 503) watch.look();
  }
}

/** In a while, unless it is in vain: a service that is well has said nothing to it so often. */
function askAgain(picture) {
  picture.tries = (picture.tries ?? 0) + 1;
  if (picture.tries < TRIES) setTimeout(() => picture === current && ask(picture), AGAIN);
  else if (picture === current) complain("there was no answer to this picture; try again, or give a smaller one");
}

/** What the page's bar tells. */
function fail(error) {
  if (!(error instanceof Lost || error instanceof Locked)) throw error;
  if (error instanceof Locked) unlock();
  watch.look();
}

function complain(text) {
  if (find("complaint").textContent !== text) find("complaint").textContent = text;
}

function take(picture) {
  const limit = watch.status?.limits.body;
  if (limit && picture.size > limit) {
    const [given, most] = [picture.size, limit].map((size) => size.toLocaleString("en"));
    complain(`${picture.name}: has ${given} bytes; give ${most} at most`);
  } else if (picture.source === null) {
    ask(picture); // the board can't show it
  } else {
    board.give(picture);
  }
}

const watch = new Watch((status, again) => {
  document.documentElement.dataset.version = status.model?.version ?? "";
  if (status.model) {
    const names = status.model.class_names;
    showClasses(names);
    find("samples").closest("section").hidden = !CLASSES.every((name) => names.includes(name)); // it knows other things
  }
  showModel(status);
  if (!find("links").childElementCount) {
    find("links").append(...Object.entries(status.links).map(([name, address]) => link(name, address)));
  }
  if (again && current) ask(current);
}, unlock);

function unlock() {
  const dialog = find("lock");
  if (dialog.open || declined) return;
  if (hasKey()) find("lock-why").textContent = "This key is wrong. Whoever runs the service has the right one.";
  dialog.showModal();
}

function listenToKeyboard() {
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("dialog, input:not([type=radio], [type=checkbox])")) return;
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z") {
      event.preventDefault();
      board.undo();
    } else if (event.key === "Escape") {
      board.clear();
    }
  });
}

function listenToTools() {
  find("undo").addEventListener("click", () => board.undo());
  find("clear").addEventListener("click", () => board.clear());
  find("fill").addEventListener("change", ({ target }) => (board.fills = target.checked));
  for (const pen of document.getElementsByName("pen")) {
    pen.addEventListener("change", () => (board.width = Number(pen.value)));
  }
  find("unlock").addEventListener("click", () => {
    declined = false;
    unlock();
  });
  find("lock-close").addEventListener("click", () => find("lock").close());
  find("lock").addEventListener("close", () => ((declined = !keyGiven), (keyGiven = false)));
  find("lock").addEventListener("submit", () => {
    keyGiven = true; // if it is wrong, ask anew
    useKey(find("key").value);
    find("key").value = "";
    setTimeout(() => {
      watch.look(true);
      if (current) ask(current);
    });
  });
}

listenToKeyboard();
listenToTools();
files.listen(take, complain);
watch.look();

function loadSamples() {
  const take = (picture) => {
    board.give(picture);
    if (find("label").getBoundingClientRect().bottom < 0) find("drop").scrollIntoView(); // a phone's screen is short
  };
  // without them the page is still of use; the bar tells what is wrong
  showSamples(find("samples"), take).catch((error) => error.status < 500 || setTimeout(loadSamples, AGAIN));
}

loadSamples();
