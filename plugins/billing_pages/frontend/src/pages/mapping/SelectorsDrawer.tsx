import { Alert, Box, Button, HStack, Input, SegmentGroup, Skeleton, Stack, Table, Text } from "@chakra-ui/react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";

import { Drawer } from "../../components/Drawer";
import { ErrorBox } from "../../components/ErrorBox";
import { ApiError } from "../../lib/api";
import { counted, moneyList } from "../../lib/format";
import { fetchSelectors, storeSelectors } from "./api";
import { TargetPicker } from "./TargetPicker";
import type { Released, Selectors, SelectorSource } from "./types";

type SelectorKind = SelectorSource["kind"];
interface Assigned {
  company: { id: number; name: string };
  note: string | null;
}
/** Companies by "kind/source id". */
type Draft = Record<string, Assigned>;

const KINDS: { value: SelectorKind; label: string }[] = [
  { value: "contract", label: "Contracts" },
  { value: "offer", label: "Offers" },
  { value: "subscription", label: "Subscriptions" },
];
const SHOWN_AT_ONCE = 40;
const keyOf = (one: { kind: string; source_id: string }) => `${one.kind}/${one.source_id}`;

function draftOf(selectors: Selectors): Draft {
  return Object.fromEntries(
    selectors.selectors.map((one) => [
      keyOf(one),
      { company: { id: one.company_id, name: one.company_name ?? `company ${one.company_id}` }, note: one.note },
    ]),
  );
}

/** Everything that may be assigned: what the organization has, and what its selectors name though it is gone. */
function sourcesOf(selectors: Selectors): SelectorSource[] {
  const known = new Set(selectors.sources.map(keyOf));
  const gone = selectors.selectors
    .filter((one) => !known.has(keyOf(one)))
    .map((one) => ({ kind: one.kind, source_id: one.source_id, name: one.source_name, money: [] }));
  return [...selectors.sources, ...gone];
}

interface Props {
  organizationId: string;
  refusal?: string;
  onClose: () => void;
  onReleased: (released: Released) => void;
}

/** One organization, several companies: which of its contracts, offers and subscriptions go to which. */
export function SelectorsDrawer({ organizationId, refusal, onClose, onReleased }: Props) {
  const queries = useQueryClient();
  const queryKey = ["selectors", organizationId];
  const stored = useQuery({ queryKey, queryFn: ({ signal }) => fetchSelectors(organizationId, signal) });
  const [draft, setDraft] = useState<Draft | null>(null);
  const [kind, setKind] = useState<SelectorKind | null>(null);
  const [search, setSearch] = useState("");
  const [others, setOthers] = useState<Selectors | null>(null);

  const current = stored.data;
  const assigned = draft ?? (current ? draftOf(current) : {});
  const sources = useMemo(() => (current ? sourcesOf(current) : []), [current]);
  const shownKind = kind ?? KINDS.find((one) => sources.some((source) => source.kind === one.value))?.value ?? "contract";
  const found = sources.filter(
    (one) =>
      one.kind === shownKind && `${one.name ?? ""} ${one.source_id}`.toLowerCase().includes(search.trim().toLowerCase()),
  );
  const isChanged = draft !== null && current !== undefined && !isSame(draft, draftOf(current));
  const companies = [...new Map(Object.values(assigned).map((one) => [one.company.id, one.company])).values()];

  const save = useMutation({
    mutationFn: (fingerprint: string) =>
      storeSelectors(organizationId, {
        fingerprint,
        selectors: Object.entries(assigned).map(([key, one]) => ({
          kind: key.slice(0, key.indexOf("/")) as SelectorKind,
          source_id: key.slice(key.indexOf("/") + 1),
          company_id: one.company.id,
          note: one.note,
        })),
      }),
    onSuccess: ({ selectors, released }) => {
      queries.setQueryData(queryKey, selectors);
      void queries.invalidateQueries({ queryKey: ["mappings"] });
      void queries.invalidateQueries({ queryKey: ["history", "mapping.company_selector"] });
      setDraft(null);
      setOthers(null);
      onReleased(released);
    },
    onError: (error) => {
      if (error instanceof ApiError && error.status === 409) setOthers((error.problem.current as Selectors) ?? null);
    },
  });

  const assign = (source: SelectorSource, company: { id: number; name: string } | null) => {
    const next = { ...assigned };
    if (company === null) delete next[keyOf(source)];
    else next[keyOf(source)] = { company, note: next[keyOf(source)]?.note ?? null };
    setDraft(next);
  };

  return (
    <Drawer
      title={current ? `Companies of ${current.organization_name}` : "Companies"}
      onClose={onClose}
      footer={
        <>
          <Box flex="1" fontSize="sm">
            {save.isError && !others ? (
              <Text color="fg.error" role="alert">
                {save.error.message}
              </Text>
            ) : (
              <Text color="fg.muted">{refusal}</Text>
            )}
          </Box>
          <Button variant="outline" onClick={onClose}>
            {isChanged ? "Discard" : "Close"}
          </Button>
          <Button
            disabled={refusal !== undefined || !isChanged || others !== null}
            title={refusal}
            loading={save.isPending}
            onClick={() => current && save.mutate(current.fingerprint)}
          >
            Save
          </Button>
        </>
      }
    >
      {stored.isPending && <Skeleton height="200px" />}
      {stored.isError && <ErrorBox error={stored.error} what="The selectors could not be read" onRetry={() => void stored.refetch()} />}
      {current && (
        <Stack gap={4}>
          <Alert.Root status="info">
            <Alert.Indicator />
            <Alert.Content>
              <Alert.Title>
                {Object.keys(assigned).length === 0
                  ? "No selectors: all lines go to the organization's own company"
                  : `${counted(Object.keys(assigned).length, "selector")}, ${counted(companies.length, "company", "companies")}`}
              </Alert.Title>
              <Alert.Description>
                Once something is assigned here, these selectors alone decide. A line that no selector claims is held,
                and so is one that selectors claim for several companies. Selectors that name the same company agree. The
                organization itself must be approved all the same.
              </Alert.Description>
            </Alert.Content>
          </Alert.Root>
          {others && (
            <Conflict
              mine={assigned}
              nameOf={(key) => {
                const source = sources.find((one) => keyOf(one) === key);
                return source?.name ? `${source.kind} ${source.name}` : key.replace("/", " ");
              }}
              theirs={others}
              isSaving={save.isPending}
              onTheirs={() => {
                queries.setQueryData(queryKey, others);
                setDraft(null);
                setOthers(null);
              }}
              onMine={() => save.mutate(others.fingerprint)}
            />
          )}
          <HStack wrap="wrap" justify="space-between">
            <SegmentGroup.Root
              size="sm"
              value={shownKind}
              onValueChange={({ value }) => setKind(value as SelectorKind)}
              aria-label="What is assigned"
            >
              <SegmentGroup.Indicator />
              {KINDS.map(({ value, label }) => (
                <SegmentGroup.Item key={value} value={value}>
                  <SegmentGroup.ItemText>
                    {label} ({sources.filter((one) => one.kind === value).length})
                  </SegmentGroup.ItemText>
                  <SegmentGroup.ItemHiddenInput />
                </SegmentGroup.Item>
              ))}
            </SegmentGroup.Root>
            <Input
              size="sm"
              maxW="220px"
              type="search"
              placeholder="Search"
              aria-label={`Search ${shownKind}s`}
              value={search}
              onChange={(event) => setSearch(event.target.value)}
            />
          </HStack>
          {found.length === 0 ? (
            <Text color="fg.muted" fontSize="sm">
              {search ? `No ${shownKind} is called “${search}”.` : `The organization has no ${shownKind} on its invoices.`}
            </Text>
          ) : (
            <Table.Root size="sm" variant="line">
              <Table.Header>
                <Table.Row>
                  <Table.ColumnHeader>{KINDS.find((one) => one.value === shownKind)?.label.slice(0, -1)}</Table.ColumnHeader>
                  <Table.ColumnHeader>Its lines</Table.ColumnHeader>
                  <Table.ColumnHeader width="45%">Company</Table.ColumnHeader>
                </Table.Row>
              </Table.Header>
              <Table.Body>
                {found.slice(0, SHOWN_AT_ONCE).map((source) => (
                  <Table.Row key={keyOf(source)} bg="transparent">
                    <Table.ColumnHeader scope="row" fontWeight="normal">
                      <Text>{source.name ?? source.source_id}</Text>
                      {source.name && (
                        <Text fontSize="xs" color="fg.muted">
                          {source.source_id}
                        </Text>
                      )}
                    </Table.ColumnHeader>
                    <Table.Cell fontSize="sm">{source.money.length > 0 ? moneyList(source.money) : "–"}</Table.Cell>
                    <Table.Cell>
                      <TargetPicker
                        // Other stored selectors begin anew.
                        key={current.fingerprint}
                        kind="companies"
                        name={`Company of ${source.name ?? source.source_id}`}
                        value={assigned[keyOf(source)]?.company ?? null}
                        onChange={(company) => assign(source, company)}
                        isDisabled={refusal !== undefined}
                        placeholder="Not assigned"
                      />
                    </Table.Cell>
                  </Table.Row>
                ))}
              </Table.Body>
            </Table.Root>
          )}
          {found.length > SHOWN_AT_ONCE && (
            <Text fontSize="sm" color="fg.muted">
              The first {SHOWN_AT_ONCE} of {found.length}. Search to see others.
            </Text>
          )}
        </Stack>
      )}
    </Drawer>
  );
}

function isSame(one: Draft, other: Draft): boolean {
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length && keys.every((key) => other[key] && one[key]?.company.id === other[key].company.id)
  );
}

/** Somebody else stored selectors meanwhile: theirs beside mine, to choose from. */
function Conflict(props: {
  mine: Draft;
  theirs: Selectors;
  nameOf: (key: string) => string;
  isSaving: boolean;
  onTheirs: () => void;
  onMine: () => void;
}) {
  const theirs = draftOf(props.theirs);
  const differing = [...new Set([...Object.keys(props.mine), ...Object.keys(theirs)])].filter(
    (key) => props.mine[key]?.company.id !== theirs[key]?.company.id,
  );
  return (
    <Alert.Root status="warning" role="alert">
      <Alert.Indicator />
      <Alert.Content>
        <Alert.Title>Somebody else changed these selectors meanwhile</Alert.Title>
        <Alert.Description>
          <Table.Root size="sm" variant="line" mt={2}>
            <Table.Header>
              <Table.Row bg="transparent">
                <Table.ColumnHeader>Selector</Table.ColumnHeader>
                <Table.ColumnHeader>Stored now</Table.ColumnHeader>
                <Table.ColumnHeader>Yours</Table.ColumnHeader>
              </Table.Row>
            </Table.Header>
            <Table.Body>
              {differing.map((key) => (
                <Table.Row key={key} bg="transparent">
                  <Table.Cell>{props.nameOf(key)}</Table.Cell>
                  <Table.Cell>{theirs[key]?.company.name ?? "not assigned"}</Table.Cell>
                  <Table.Cell>{props.mine[key]?.company.name ?? "not assigned"}</Table.Cell>
                </Table.Row>
              ))}
            </Table.Body>
          </Table.Root>
          <HStack mt={3}>
            <Button size="xs" variant="outline" onClick={props.onTheirs}>
              Take what is stored
            </Button>
            <Button size="xs" loading={props.isSaving} onClick={props.onMine}>
              Store mine instead
            </Button>
          </HStack>
        </Alert.Description>
      </Alert.Content>
    </Alert.Root>
  );
}
