// Looks for new mails every two seconds, and switches between the mail and its plain text.
const list = document.getElementById("list");
const query = new URLSearchParams({ selected: document.body.dataset.selected, q: document.querySelector("input[name=q]").value });
let shown = null;

async function look() {
  try {
    const answer = await fetch("/list?" + query);
    const rows = await answer.text();
    if (answer.ok && rows !== shown) {
      if (shown !== null) list.innerHTML = rows; // escaped by the server
      shown = rows;
    }
    document.body.classList.toggle("gone", !answer.ok);
  } catch {
    document.body.classList.add("gone"); // the demo was stopped; it may come back
  }
  setTimeout(look, document.hidden ? 10000 : 2000);
}
look();

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[role=tab]")) {
      other.setAttribute("aria-selected", String(other === tab));
      document.getElementById(other.dataset.shows).hidden = other !== tab;
    }
  });
}
