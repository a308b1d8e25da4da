/** Scrolls an element to the top of the page's own scroll area. scrollIntoView would move Airflow's page and our tabs, too. */
export function showInPage(element: HTMLElement | null): void {
  const area = element?.closest("main");
  if (!element || !area) return;
  area.scrollTo({ top: area.scrollTop + element.getBoundingClientRect().top - area.getBoundingClientRect().top - 16 });
}
