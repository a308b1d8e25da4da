// Nodes for grid cells: text is always textContent, so nothing that a customer wrote is ever read as HTML.

type Attributes = Record<string, string | boolean | ((event: Event) => void) | undefined>;

/** `node("span", {class: "badge", title: why}, "text", other)`; `onclick: (event) => ...` adds a listener. */
export function node<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: (Node | string | null | undefined)[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}
