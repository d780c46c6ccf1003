// Cells with a sentence keep room for some words a line; a table that is too wide for that is moved sideways.
// A button beside each block of code. Of a terminal, it copies the commands: neither prompts nor what they print.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const [copy, copied] = document.documentElement.lang === "ja" ? ["コピー", "コピーしました"] : ["Copy", "Copied"];
  for (const cell of document.querySelectorAll("table.docutils td")) {
    cell.classList.toggle("sentence", cell.textContent.length > 24);
  }
  for (const block of document.querySelectorAll("div.highlight")) {
    const lines = block.querySelector("pre").textContent.split("\n");
    const commands = lines.filter((line) => line.startsWith("$ ")).map((line) => line.slice(2));
    const isTerminal = block.parentElement.classList.contains("highlight-console");
    const button = document.createElement("button");
    button.className = "copy";
    button.textContent = copy;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText((isTerminal ? commands : lines).join("\n").trimEnd() + "\n");
      button.textContent = copied;
      setTimeout(() => { button.textContent = copy; }, 2000);
    });
    block.append(button);
  }
});
