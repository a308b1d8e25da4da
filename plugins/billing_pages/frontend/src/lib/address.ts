// State of a page in its address, so that a copied address opens the same view, also when it is copied from Airflow's own
// address bar.
import { useCallback, useMemo } from "react";
import { useLocation, useNavigate } from "react-router";
import { airflowWindow } from "./airflow";

export type State = Record<string, string>;

/** The state that a query string holds; what it does not name is as in defaults. */
export function readState<T extends State>(search: string, defaults: T): T {
  const given = new URLSearchParams(search);
  const state: State = { ...defaults };
  for (const name of Object.keys(defaults)) {
    const value = given.get(name);
    if (value !== null) state[name] = value;
  }
  return state as T;
}

/** The query string with a change: defaults are left out, what others keep there stays. */
export function changedSearch<T extends State>(search: string, defaults: T, change: Partial<T>): string {
  const next = new URLSearchParams(search);
  for (const [name, value] of Object.entries(change)) {
    if (value === undefined || value === defaults[name]) next.delete(name);
    else next.set(name, value as string);
  }
  const text = next.toString();
  return text === "" ? "" : `?${text}`;
}

/**
 * Page state in the query string: `const [state, change] = useAddress({q: "", state: "all"})`, `change({q: "abc"})`. Several
 * hooks on one page may each keep names of their own. Defaults must be the same at every call (a constant).
 */
export function useAddress<T extends State>(defaults: T): [T, (change: Partial<T>) => void] {
  const { search } = useLocation();
  const navigate = useNavigate();
  const key = JSON.stringify(defaults);
  // biome-ignore lint: key stands for defaults
  const fixed = useMemo(() => JSON.parse(key) as T, [key]);
  const state = useMemo(() => readState(search, fixed), [search, fixed]);
  const change = useCallback(
    (changes: Partial<T>) => {
      // window.location is ahead of React's state when several changes come in one event
      const next = changedSearch(window.location.search, fixed, changes);
      if (next !== window.location.search) navigate({ search: next }, { replace: true, preventScrollReset: true });
    },
    [fixed, navigate],
  );
  return [state, change];
}

/** Airflow's address that shows `path` (with query) inside the page that is open now, or null outside of its plugin page. */
export function mirroredAddress(airflowPath: string, path: string): string | null {
  if (airflowPath.includes("/dags/")) return null;
  const page = /^(.*?\/plugin\/[^/]+)(\/|$)/.exec(airflowPath);
  return page === null ? null : `${page[1]}${path}`;
}

/** Keeps Airflow's address bar in step. Airflow itself does so only when the iframe loads. */
export function mirrorAddress(): void {
  const airflow = airflowWindow();
  if (airflow === null) return;
  const { pathname, search, hash } = window.location;
  const address = mirroredAddress(airflow.location.pathname, `${pathname}${search}${hash}`);
  if (address !== null && address !== `${airflow.location.pathname}${airflow.location.search}`) {
    airflow.history.replaceState(airflow.history.state, "", address);
  }
}
