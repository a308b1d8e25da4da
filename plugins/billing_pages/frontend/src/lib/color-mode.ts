// Light or dark as in Airflow, at once when the reader switches there; outside of Airflow as the system prefers.
import { airflowWindow } from "./airflow";

export function followColorMode(): void {
  const airflow = airflowWindow();
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const root = airflow?.document.documentElement;
    const named = root && (root.dataset.theme ?? ["dark", "light"].find((mode) => root.classList.contains(mode)));
    const mode = named === "dark" || named === "light" ? named : prefersDark.matches ? "dark" : "light";
    document.documentElement.classList.remove("light", "dark");
    document.documentElement.classList.add(mode);
    document.documentElement.style.colorScheme = mode;
  };
  apply();
  prefersDark.addEventListener("change", apply);
  if (airflow !== null) {
    new MutationObserver(apply).observe(airflow.document.documentElement, { attributeFilter: ["class", "data-theme"] });
  }
}
