import { Heading, Input, Stack, Table, Text } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";

import { Empty } from "../../../components/Empty";
import { ErrorBox } from "../../../components/ErrorBox";
import { Loading } from "../../../components/Loading";
import { Page } from "../../../components/Page";
import { TextLink } from "../../../components/TextLink";
import { useAddress } from "../../../lib/address";
import { get } from "../../../lib/api";
import { linesLink } from "../../../lib/links";
import type { Model } from "../../../models";
import { fetchChargeTypes } from "../configuration/api";
import { wordsOf } from "../../../lib/dateRules";
import { STATES, WORDS } from "./words";

/** The words of both systems and of these pages, side by side. */
export function DictionaryPage() {
  const [state, change] = useAddress({ q: "" });
  const reasons = useQuery({ queryKey: ["dictionary"], queryFn: () => get<Model<"Dictionary">>("dictionary") });
  const chargeTypes = useQuery({ queryKey: ["charge-types"], queryFn: ({ signal }) => fetchChargeTypes(signal) });
  const wanted = state.q.trim().toLowerCase();
  const fits = (...texts: (string | null | undefined)[]) => texts.join(" ").toLowerCase().includes(wanted);

  const words = WORDS.filter((one) => fits(one.here, one.appxite, one.connectwise, one.meaning));
  const states = STATES.filter((one) => fits(one.of, one.state, one.meaning));
  const held = (reasons.data?.held_reasons ?? []).filter((one) => fits(one.code, one.title, one.cure));
  const types = (chargeTypes.data ?? []).filter((one) => fits(one.charge_type, one.display_name));
  const isNothing =
    words.length + states.length + held.length + types.length === 0 && reasons.isSuccess && chargeTypes.isSuccess;

  return (
    <Page
      title="Dictionary"
      detail="The words of AppXite, of ConnectWise, and of these pages."
      actions={
        <Input
          size="sm"
          width="64"
          type="search"
          placeholder="Search words"
          aria-label="Search words"
          value={state.q}
          onChange={(event) => change({ q: event.target.value })}
        />
      }
    >
      <Stack gap={8} maxW="1200px" pb={8}>
        {isNothing && <Empty title="No such word" detail={`Nothing is called or explained with “${state.q}”.`} />}
        <Words
          title="Words"
          columns={["Here", "AppXite", "ConnectWise", "What it means"]}
          rows={words.map((one) => ({ key: one.here, cells: [one.here, one.appxite, one.connectwise, one.meaning] }))}
        />
        <Words
          title="States"
          columns={["Of", "State", "What it means"]}
          rows={states.map((one) => ({ key: `${one.of} ${one.state}`, cells: [one.of, one.state, one.meaning], head: 1 }))}
        />
        {chargeTypes.isError && <ErrorBox error={chargeTypes.error} what="The charge types could not be read" />}
        <Words
          title="Charge types"
          detail="Names and rules are changed in Configuration."
          columns={["AppXite", "Customers see", "Lines", "Charge start", "Charge end"]}
          rows={types.map((one) => ({
            key: one.charge_type,
            cells: [
              one.charge_type,
              one.display_name,
              one.is_recurring ? "recurring" : "one-time",
              wordsOf(one.charge_start_rule),
              wordsOf(one.charge_end_rule),
            ],
          }))}
        />
        {reasons.isPending && <Loading what="held reasons" />}
        {reasons.isError && <ErrorBox error={reasons.error} what="The held reasons could not be read" onRetry={() => void reasons.refetch()} />}
        <Words
          title="Held reasons"
          detail="Why a line waits, and what cures it. A line is held with all reasons that apply."
          columns={["Reason", "Cause", "Cure"]}
          rows={held.map((one) => ({
            key: one.code,
            cells: [
              <TextLink key="code" to={linesLink({ reason_codes: [one.code] })} title="Show the lines that it holds">
                {one.code}
              </TextLink>,
              one.title,
              <span key="cure">
                {one.cure} {one.cure_link && <TextLink to={`/${one.cure_link}`}>Where it is cured</TextLink>}
              </span>,
            ],
          }))}
        />
      </Stack>
    </Page>
  );
}

interface WordsProps {
  title: string;
  detail?: string;
  columns: string[];
  /** head: which cell names the row, the first if it is left out. */
  rows: { key: string; cells: React.ReactNode[]; head?: number }[];
}

function Words({ title, detail, columns, rows }: WordsProps) {
  if (rows.length === 0) return null;
  const id = `words-${title.toLowerCase().replaceAll(" ", "-")}`;
  return (
    <Stack as="section" gap={2} aria-labelledby={id}>
      <Heading as="h2" size="md" id={id}>
        {title}
      </Heading>
      {detail && <Text color="fg.muted">{detail}</Text>}
      <Table.ScrollArea borderWidth="1px" borderRadius="md" whiteSpace="normal">
        <Table.Root size="sm" aria-labelledby={id}>
          <Table.Header>
            <Table.Row>
              {columns.map((column) => (
                <Table.ColumnHeader key={column}>{column}</Table.ColumnHeader>
              ))}
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {rows.map(({ key, cells, head = 0 }) => (
              <Table.Row key={key} verticalAlign="top">
                {cells.map((cell, number) =>
                  number === head ? (
                    <Table.ColumnHeader key={columns[number]} scope="row" minW="36">
                      {cell}
                    </Table.ColumnHeader>
                  ) : (
                    <Table.Cell key={columns[number]}>{cell}</Table.Cell>
                  ),
                )}
              </Table.Row>
            ))}
          </Table.Body>
        </Table.Root>
      </Table.ScrollArea>
    </Stack>
  );
}
