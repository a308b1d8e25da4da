import { Box, Button, Checkbox, Flex, HStack, Input, Switch, Text } from "@chakra-ui/react";
import { useDeferredValue } from "react";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { Loading } from "../../components/Loading";
import { useAddress } from "../../lib/address";
import { counted } from "../../lib/format";
import { LOG_ADDRESS } from "./address";
import { useEntries } from "./entries";
import { EntryTable } from "./EntryTable";

const LEVELS = [
  ["ERROR", "Errors"],
  ["WARNING", "Warnings"],
  ["INFO", "Info"],
] as const;

/** Entries with their filters; live as long as nobody pauses it. isLedger: of all time, not of 30 days. */
export function Entries({ isLedger }: { isLedger: boolean }) {
  const [address, change] = useAddress(LOG_ADDRESS);
  const isLive = !isLedger && address.live === "on";
  const q = useDeferredValue(address.q);
  const { pages, entries, fresh, liveError } = useEntries({ ...address, q }, isLedger, isLive);
  const levels = address.levels === "" ? [] : address.levels.split(",");
  const toggle = (level: string, isOn: boolean) => {
    const next = isOn ? [...levels, level] : levels.filter((each) => each !== level);
    change({ levels: next.length === LEVELS.length ? "" : next.join(",") });
  };
  const isFiltered = address.levels !== "" || address.q !== "" || address.run !== "" || address.code !== "";

  return (
    <Box>
      <Flex gap="4" mb="2" wrap="wrap" align="center">
        <Input type="search" size="sm" width="20rem" aria-label="Search in messages" placeholder="Search in messages …" value={address.q} onChange={(event) => change({ q: event.target.value })} />
        <HStack gap="3" role="group" aria-label="Levels">
          {LEVELS.map(([level, label]) => (
            <Checkbox.Root key={level} size="sm" checked={levels.includes(level)} onCheckedChange={(each) => toggle(level, each.checked === true)}>
              <Checkbox.HiddenInput />
              <Checkbox.Control />
              <Checkbox.Label>{label}</Checkbox.Label>
            </Checkbox.Root>
          ))}
        </HStack>
        {address.run !== "" && (
          <Button size="xs" variant="subtle" onClick={() => change({ run: "" })} aria-label={`Only run ${address.run}: take this filter away`}>
            Only run {address.run} ✕
          </Button>
        )}
        {!isLedger && (
          <Switch.Root size="sm" ms="auto" colorPalette="green" checked={isLive} onCheckedChange={(each) => change({ live: each.checked ? "on" : "off" })}>
            <Switch.HiddenInput />
            <Switch.Control />
            <Switch.Label>{isLive ? "Live" : "Paused"}</Switch.Label>
          </Switch.Root>
        )}
      </Flex>
      <Text className="sr-only" aria-live="polite" role="status">
        {fresh > 0 ? `${counted(fresh, "new entry", "new entries")} on top` : ""}
      </Text>
      {liveError && <ErrorBox error={liveError} what="New entries cannot be read; trying again" />}
      {pages.isPending ? (
        <Loading what="log entries" />
      ) : pages.error ? (
        <ErrorBox error={pages.error} onRetry={() => pages.refetch()} />
      ) : entries.length === 0 ? (
        <Empty
          title={isFiltered ? "No entry fits to these filters" : isLedger ? "The ledger is empty" : "Nothing was said in the last 30 days"}
          detail={isFiltered ? undefined : "Every run writes here what it did, what it held and what went wrong."}
        >
          {isFiltered && (
            <Button size="xs" variant="outline" onClick={() => change({ levels: "", q: "", run: "", code: "" })}>
              Take all filters away
            </Button>
          )}
        </Empty>
      ) : (
        <>
          <EntryTable entries={entries} />
          {pages.hasNextPage ? (
            <Button mt="2" size="xs" variant="outline" loading={pages.isFetchingNextPage} onClick={() => pages.fetchNextPage()}>
              Show older entries
            </Button>
          ) : (
            <Text mt="2" fontSize="xs" color="fg.muted">
              {isLedger ? "This is everything." : "Older entries stand in the ledger."}
            </Text>
          )}
        </>
      )}
    </Box>
  );
}
