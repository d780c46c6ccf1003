// Keeps the outage lab current without reloading the page. Without this file every switch still works as a form.
(() => {
  "use strict";
  const lab = document.getElementById("lab");
  if (!lab) return;

  const setText = (element, text) => {
    if (element && element.textContent !== String(text)) element.textContent = text;
  };
  const setCell = (row, name, value) => {
    const cell = row.querySelector(`[data-cell="${name}"]`);
    setText(cell, value);
    if ("is" in cell.dataset) cell.dataset.is = value;
  };
  const setCurrent = (items, number, value) => {
    items.forEach((item, n) => (n === number ? item.setAttribute("aria-current", value) : item.removeAttribute("aria-current")));
  };

  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  function showMessages(place, messages) {
    const items = messages.map(({ severity, alert, state }) => {
      const item = make("li", ` ${alert}: ${state}`);
      item.prepend(make("span", severity, { class: "pill", "data-is": severity }));
      return item;
    });
    place.replaceChildren(...(items.length ? items : [make("li", place.dataset.none, { class: "hint" })]));
  }

  function showMetrics(place, metrics) {
    const rows = metrics.map((metric) => {
      const row = make("tr", "");
      row.append(make("th", metric.name, { scope: "row" }));
      row.append(...["statistic", "value"].map((key) => make("td", metric[key])));
      return row;
    });
    place.replaceChildren(...rows);
  }

  // Each answer is of one worker; the other ones' charts stay until they have not answered for a while.
  const answeredAt = new Map();
  function showWorker(pid, charts) {
    const place = document.getElementById("workers");
    answeredAt.set(pid, Date.now());
    let worker = place.querySelector(`[data-pid="${pid}"]`);
    if (!worker) {
      worker = make("section", "", { class: "worker", "data-pid": pid });
      const after = [...place.children].find((other) => Number(other.dataset.pid) > pid);
      place.insertBefore(worker, after ?? null);
    }
    worker.innerHTML = charts;
    for (const other of [...place.children]) {
      if (Date.now() - (answeredAt.get(Number(other.dataset.pid)) ?? started) > 20_000) other.remove();
    }
  }
  const started = Date.now();

  function show(panel) {
    lab.dataset.level = panel.level;
    lab.dataset.step = panel.step;
    for (const place of document.querySelectorAll("[data-show]")) setText(place, panel[place.dataset.show]);
    for (const badge of document.querySelectorAll(".badge")) badge.dataset.level = panel.level;
    setCurrent(lab.querySelectorAll(".named li"), panel.level, "true");
    setCurrent(lab.querySelectorAll(".tour li"), panel.step, "step");
    showWorker(panel.pid, panel.charts);
    const age = lab.querySelector('[data-action="age"] button');
    if (age) age.disabled = panel.level !== 2;
    for (const server of panel.servers ?? []) {
      const row = lab.querySelector(`[data-server="${server.name}"]`);
      row.dataset.is = server.state;
      setText(row.querySelector(".state"), server.text);
    }
    for (const feature of panel.features) {
      const row = lab.querySelector(`[data-feature="${feature.feature}"]`);
      row.classList.toggle("disabled", !feature.available);
      for (const name of ["now", "behaviour", "priority", "source"]) setCell(row, name, feature[name]);
    }
    const messages = document.getElementById("aws-messages");
    if (panel.aws && messages) {
      showMessages(messages, panel.aws.messages);
      showMetrics(document.getElementById("aws-metrics"), panel.aws.metrics);
    }
  }

  function complain(text) {
    const place = document.getElementById("lab-error");
    if (!place) return;
    place.hidden = !text;
    place.textContent = text;
  }

  async function act(form) {
    const row = form.closest("[data-server]");
    row.classList.add("busy");
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: new FormData(form),
        headers: { Accept: "application/json" },
      });
      if (answer.ok) show(await answer.json());
      complain(answer.ok ? "" : `${answer.status} ${answer.statusText}`);
    } catch (error) {
      complain(String(error));
    } finally {
      row.classList.remove("busy");
      // The button that was pressed is hidden now, if it has worked: go on at the one in its place.
      if (!form.querySelector("button").checkVisibility()) {
        [...row.querySelectorAll("button")].find((button) => button.checkVisibility())?.focus();
      }
    }
  }

  async function poll() {
    try {
      const answer = await fetch(lab.dataset.state);
      if (answer.ok) show(await answer.json());
    } catch {
      // The application itself is away; the next poll tells.
    }
    setTimeout(poll, document.hidden ? 5000 : 1000);
  }

  lab.addEventListener("submit", (event) => {
    event.preventDefault();
    act(event.target);
  });
  setTimeout(poll, 1000);
})();
