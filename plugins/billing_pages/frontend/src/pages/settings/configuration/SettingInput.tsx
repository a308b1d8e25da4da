import { HStack, Input, NativeSelect, Switch, Text } from "@chakra-ui/react";

import type { Setting } from "./types";

interface Props {
  setting: Setting;
  value: string;
  onChange: (value: string) => void;
  disabled: boolean;
  describedBy: string;
}

/** The input that fits a setting's kind; values are text as the server takes it. */
export function SettingInput({ setting, value, onChange, disabled, describedBy }: Props) {
  const shared = { "aria-label": setting.title, "aria-describedby": describedBy } as const;
  switch (setting.kind) {
    case "switch":
      return (
        <Switch.Root checked={value === "on"} disabled={disabled} onCheckedChange={({ checked }) => onChange(checked ? "on" : "off")}>
          <Switch.HiddenInput {...shared} />
          <Switch.Control />
          <Switch.Label>{value === "on" ? "on" : "off"}</Switch.Label>
        </Switch.Root>
      );
    case "choice":
      return (
        <NativeSelect.Root size="sm" maxW="64" disabled={disabled}>
          <NativeSelect.Field {...shared} value={value} onChange={(event) => onChange(event.target.value)}>
            {setting.choices.map((choice) => (
              <option key={choice} value={choice}>
                {choice.replaceAll("_", " ")}
              </option>
            ))}
          </NativeSelect.Field>
          <NativeSelect.Indicator />
        </NativeSelect.Root>
      );
    case "bound":
      return (
        <HStack gap={3}>
          <Switch.Root
            checked={value !== "off"}
            disabled={disabled}
            onCheckedChange={({ checked }) => onChange(checked ? fallback(setting) : "off")}
          >
            <Switch.HiddenInput aria-label={`${setting.title}: on or off`} />
            <Switch.Control />
          </Switch.Root>
          {value === "off" ? (
            <Text>off: no bound</Text>
          ) : (
            <Input
              {...shared}
              size="sm"
              maxW="36"
              inputMode="numeric"
              value={value}
              disabled={disabled}
              onChange={(event) => onChange(event.target.value.trim())}
            />
          )}
        </HStack>
      );
    case "number":
      return (
        <HStack>
          <Input
            {...shared}
            size="sm"
            maxW="36"
            inputMode="numeric"
            value={value}
            disabled={disabled}
            onChange={(event) => onChange(event.target.value.trim())}
          />
          {setting.lowest !== null && setting.highest !== null && (
            <Text fontSize="xs" color="fg.muted">
              {setting.lowest} to {setting.highest}
            </Text>
          )}
        </HStack>
      );
    default:
      return (
        <>
          <Input
            {...shared}
            size="sm"
            maxW="xl"
            maxLength={1000}
            value={value}
            disabled={disabled}
            list={setting.choices.length > 0 ? `${describedBy}-choices` : undefined}
            onChange={(event) => onChange(event.target.value)}
          />
          {setting.choices.length > 0 && (
            <datalist id={`${describedBy}-choices`}>
              {setting.choices.map((choice) => (
                <option key={choice} value={choice} />
              ))}
            </datalist>
          )}
        </>
      );
  }
}

/** What a bound is switched on with: its default, if that is no "off". */
function fallback(setting: Setting): string {
  if (setting.value !== "off") return setting.value;
  return setting.default && setting.default !== "off" ? setting.default : "1";
}

/** Why a value cannot be stored, as far as that is known here; the server judges again. */
export function problemOf(setting: Setting, value: string): string | null {
  if (setting.kind === "number" || (setting.kind === "bound" && value !== "off")) {
    if (!/^\d{1,9}$/.test(value)) return "A whole number, please.";
    if (setting.lowest !== null && Number(value) < setting.lowest) return `At least ${setting.lowest}.`;
    if (setting.highest !== null && Number(value) > setting.highest) return `At most ${setting.highest}.`;
  }
  if ((setting.kind === "text" || setting.kind === "words") && value.trim() === "") return "It cannot be empty.";
  return null;
}
