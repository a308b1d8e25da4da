import { IconButton, Input, HStack } from "@chakra-ui/react";
import { shiftPeriod, thisPeriod } from "../lib/period";

/** A billing period, "2026-05", with steps back and forth. */
export function PeriodPicker({ value, onChange, name = "Billing period" }: { value: string; onChange: (period: string) => void; name?: string }) {
  return (
    <HStack gap={1}>
      <IconButton variant="outline" size="xs" aria-label="Previous month" onClick={() => onChange(shiftPeriod(value || thisPeriod(), -1))}>
        ‹
      </IconButton>
      <Input
        type="month"
        size="xs"
        width="10rem"
        aria-label={name}
        value={value}
        min="2000-01"
        max="2099-12"
        onChange={(e) => /^20\d\d-(0[1-9]|1[0-2])$/.test(e.target.value) && onChange(e.target.value)}
      />
      <IconButton variant="outline" size="xs" aria-label="Next month" onClick={() => onChange(shiftPeriod(value || thisPeriod(), 1))}>
        ›
      </IconButton>
    </HStack>
  );
}
