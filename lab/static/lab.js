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
    cell.dataset.is = value;
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
      row.append(...["name", "statistic", "value"].map((key) => make("td", metric[key])));
      return row;
    });
    place.replaceChildren(...rows);
  }

  function show(panel) {
    lab.dataset.level = panel.level;
    for (const place of lab.querySelectorAll("[data-show]")) setText(place, panel[place.dataset.show]);
    lab.querySelectorAll(".level li").forEach((step, n) => step.classList.toggle("now", n === panel.level));
    for (const server of panel.servers ?? []) {
      const row = lab.querySelector(`[data-server="${server.name}"]`);
      row.dataset.is = server.state;
      setText(row.querySelector(".state"), server.text);
    }
    for (const feature of panel.features) {
      const row = lab.querySelector(`[data-feature="${feature.feature}"]`);
      row.classList.toggle("disabled", !feature.available);
      for (const name of ["priority", "behaviour", "source"]) setCell(row, name, feature[name]);
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
