import type { Model } from "../../../models";

export type Setting = Model<"Setting">;
export type ChargeType = Model<"ChargeType">;
export type ChargeTypeChange = Model<"ChargeTypeChange">;
export type DateRule = ChargeType["charge_start_rule"];
export type Taxable = ChargeType["taxable"];
export type SimulationRequest = Model<"SimulationRequest">;
export type SimulationState = Model<"SimulationState">;
export type SimulatedCustomer = Model<"SimulatedCustomer">;
export type SimulatedLine = Model<"SimulatedLine">;

/** What a simulation changes: settings as text by key, charge types by name. */
export interface Changes {
  settings?: Record<string, string>;
  charge_types?: Record<string, ChargeTypeChange>;
}
