// The pages' own JSON API, below the address that index.html was served from.
import type { Problem } from "../models";

export type Params = Record<string, string | number | boolean | null | undefined | readonly (string | number)[]>;

/** An answer that is not 2xx, or no answer at all (status 0). */
export class ApiError extends Error {
  readonly status: number;
  readonly problem: Problem;

  constructor(status: number, problem: Problem) {
    super(problem.message);
    this.name = "ApiError";
    this.status = status;
    this.problem = problem;
  }
}

/** The address of an API route; also for download links. */
export function apiUrl(path: string, params: Params = {}): string {
  return withParams(new URL(`api/${path}`, document.baseURI), params);
}

export function get<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return request<T>(apiUrl(path, params), { signal });
}

export function send<T>(method: "POST" | "PUT" | "PATCH" | "DELETE", path: string, body: unknown = {}): Promise<T> {
  return request<T>(apiUrl(path), {
    method,
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Billing-Request": "1" },
  });
}

export function withParams(url: URL, params: Params): string {
  for (const [name, value] of Object.entries(params)) {
    if (value === null || value === undefined || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(one));
  }
  return url.toString();
}

export async function request<T>(url: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...init });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, {
      error: "no connection",
      message: "The server does not answer. Check that Airflow's API server runs and that you are online, then try again.",
    });
  }
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  let answer: unknown = null;
  try {
    answer = JSON.parse(text);
  } catch {
    if (response.ok) {
      throw new ApiError(response.status, { error: "unreadable answer", message: "The server's answer is not JSON. Reload the page." });
    }
  }
  if (!response.ok) throw new ApiError(response.status, asProblem(response.status, answer));
  return answer as T;
}

function asProblem(status: number, answer: unknown): Problem {
  if (answer !== null && typeof answer === "object") {
    const given = answer as Record<string, unknown>;
    if (typeof given.message === "string") return given as unknown as Problem;
    const detail = given.detail;
    if (typeof detail === "string") return { error: `HTTP ${status}`, message: detail };
    if (Array.isArray(detail)) {
      const parts = detail.map((one) => `${(one.loc ?? []).slice(1).join(".")}: ${one.msg}`);
      return { error: `HTTP ${status}`, message: parts.join("; ") };
    }
  }
  if (status === 401) return { error: "not logged in", message: "Your session has ended. Log in to Airflow again." };
  if (status === 403) return { error: "not allowed", message: "You may not do this. Ask an administrator of Airflow." };
  return { error: `HTTP ${status}`, message: "The server could not do this. Look at System Logs, or try again." };
}
