// How the service is: asked every two seconds, said in the bar at the foot of the page.

import { Locked, Lost, getStatus } from "./server.js";

const EVERY = 2000;
const NEWS = 10_000; // for how long news stay
const bar = document.getElementById("notices");

export class Watch {
  #heard;
  #locked;
  #timer = 0;
  #asking = false;
  #anew = false;
  #version; // of the model that answered last
  #news = null;
  #said = "";
  status = null;
  trouble = null; // Lost or Locked

  /** `heard(status, again)` gets each answer: `again` if another model answers now, or the service was away before.
   *  `locked()` is called where a key is asked for. */
  constructor(heard, locked) {
    this.#heard = heard;
    this.#locked = locked;
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  /** Now, and then again and again while the page is seen. `anew`: what is on its way does not count, as its key. */
  async look(anew = false) {
    if (this.#asking) {
      this.#anew ||= anew;
      return;
    }
    this.#asking = true;
    clearTimeout(this.#timer);
    const [before, trouble] = [this.status, this.trouble];
    let [status, failure] = [before, null];
    try {
      status = await getStatus();
    } catch (error) {
      failure = error instanceof Locked ? error : new Lost();
    }
    this.#asking = false;
    if (this.#anew) {
      this.#anew = false;
      return this.look();
    }
    [this.status, this.trouble] = [status, failure];
    if (!document.hidden) this.#timer = setTimeout(() => this.look(), EVERY);
    if (!this.trouble) {
      const [version, old] = [this.status.model?.version, this.#version];
      const swapped = before && version && version !== old;
      if (version) this.#version = version;
      if (swapped) this.#tell(`Version ${version} answers now${old ? `; before, it was version ${old}` : ""}.`);
      else if (trouble instanceof Lost) this.#tell("The service answers again.");
      this.#heard(this.status, swapped || Boolean(trouble) || Boolean(version && before && !before.model));
    }
    this.#say();
    if (this.trouble instanceof Locked) this.#locked();
  }

  #tell(text) {
    this.#news = text;
    setTimeout(() => {
      if (this.#news === text) this.#news = null;
      this.#say();
    }, NEWS);
  }

  #say() {
    const lines = notices(this.status, this.trouble, this.#news);
    document.documentElement.dataset.service = lines[0][0];
    const said = JSON.stringify(lines);
    if (said === this.#said) return; // a screen reader hears it once
    this.#said = said;
    document.getElementById("unlock").hidden = !(this.trouble instanceof Locked);
    bar.replaceChildren(...lines.map(([className, textContent]) => {
      return Object.assign(document.createElement("p"), { className, textContent });
    }));
  }
}

/** [kind, text] of each, the gravest first. */
function notices(status, trouble, news) {
  if (trouble instanceof Locked) return [["warning", "The service asks for a key."]];
  if (trouble) return [["failure", "The service does not answer. This page asks again every two seconds."]];
  const { model, absence, name, looked, ready, registry_trouble: away, refusal } = status;
  const lines = [];
  if (model && !ready) lines.push(["warning", "The service is being stopped."]);
  if (away && model) {
    const kept = model.from_cache ? ", kept from before a restart," : "";
    lines.push(["warning", `${away}. Version ${model.version}${kept} goes on answering.`]);
  }
  if (refusal && model) {
    lines.push(["warning", `Refused: ${refusal.reason}. Version ${model.version} goes on answering.`]);
  }
  if (!model && looked) lines.push(["warning", `No model answers: ${absence}`]);
  if (!model && !looked) lines.push(["quiet", "The model is being loaded."]);
  if (news) lines.push(["news", news]);
  return lines.length ? lines : [["quiet", `Version ${model.version} of ${name} answers.`]];
}
