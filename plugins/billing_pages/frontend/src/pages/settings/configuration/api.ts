/** Requests of Settings › Configuration, and what they answer. */
import { get, send } from "../../../lib/api";
import type { ChargeType, ChargeTypeChange, Setting, SimulationRequest, SimulationState } from "./types";

export const fetchSettings = (signal?: AbortSignal) => get<Setting[]>("settings", {}, signal);

export const storeSetting = (key: string, value: string, version: string) =>
  send<Setting>("PUT", `settings/${encodeURIComponent(key)}`, { value, version });

export const fetchChargeTypes = (signal?: AbortSignal) => get<ChargeType[]>("charge-types", {}, signal);

export const storeChargeType = (chargeType: string, change: ChargeTypeChange) =>
  send<ChargeType>("PUT", `charge-types/${encodeURIComponent(chargeType)}`, change);

export const startSimulation = (request: SimulationRequest) => send<SimulationState>("POST", "simulations", request);

export const fetchSimulation = (id: number, signal?: AbortSignal) => get<SimulationState>(`simulations/${id}`, {}, signal);
