import { Combobox } from "../../components/Combobox";
import { fetchTargets } from "./api";
import type { TargetKind } from "./types";

export interface Chosen {
  id: number;
  name: string;
}

interface Props {
  kind: TargetKind;
  /** Read to screen readers; a visible label is the caller's. */
  name: string;
  value: Chosen | null;
  onChange: (target: Chosen | null) => void;
  isDisabled?: boolean;
  /** Agreements of this company come first. */
  companyId?: number | null;
  placeholder?: string;
}

/**
 * A company, product or agreement, looked for on the server while typing. What cannot be used is greyed, with the reason.
 * value: what is picked at first; give the picker another `key` when something else is stored.
 */
export function TargetPicker({ kind, name, value, onChange, isDisabled, companyId, placeholder = "Name, identifier or id" }: Props) {
  return (
    <Combobox
      name={name}
      picked={value && { value: String(value.id), label: value.name }}
      placeholder={placeholder}
      isDisabled={isDisabled}
      search={async (text) =>
        (await fetchTargets(kind, text, companyId)).map((one) => ({
          value: String(one.id),
          label: one.name,
          detail: [one.detail, `id ${one.id}`].filter(Boolean).join(" · "),
          unusable: one.unusable,
        }))
      }
      onPick={(option) => onChange(option && { id: Number(option.value), name: option.label })}
    />
  );
}
