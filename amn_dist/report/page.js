"use strict";
for (const gallery of document.querySelectorAll(".gallery")) {
  const list = gallery.querySelector(".cards");
  const orders = gallery.querySelector(".orders");
  const buttons = [...orders.querySelectorAll("button")];
  const figure = (card, name) => (name in card.dataset ? Number(card.dataset[name]) : NaN);
  const compare = (by, sign) => (a, b) => {
    if (by === "key") return a.dataset.key < b.dataset.key ? -1 : 1;
    const [x, y] = [figure(a, by), figure(b, by)];
    return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y);
  };
  const arrange = (pressed) => {
    const cards = [...list.children].sort(compare(pressed.dataset.by, Number(pressed.dataset.sign)));
    list.replaceChildren(...cards);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
    orders.querySelector(".state").textContent = `${cards.length} images, ${pressed.textContent}`;
  };
  for (const button of buttons) button.addEventListener("click", () => arrange(button));
  orders.hidden = false;
}
