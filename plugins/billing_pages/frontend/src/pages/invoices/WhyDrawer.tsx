// The whole story of a line, for a person in a dispute: what it became, what decided so, what happened, what ConnectWise holds.
import { Badge, Box, Button, DataList, Flex, Heading, HStack, Stack, Table, Text, Timeline } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { OutcomeBadge } from "../../components/Badge";
import { Drawer } from "../../components/Drawer";
import { ErrorBox } from "../../components/ErrorBox";
import { GuardedButton } from "../../components/GuardedButton";
import { Loading } from "../../components/Loading";
import { RefuseAgreement } from "../../components/RefuseAgreement";
import { nameOf, SettleDialog, STATES, type Unsettled } from "../../components/SettleDialog";
import { TextLink } from "../../components/TextLink";
import { get } from "../../lib/api";
import { DateTime, dateTime, money, price, quantity } from "../../lib/format";
import type { Model } from "../../models";
import { EditLine } from "./EditLine";
import { type EditableField, FIELD_TITLES, type Line, type LineChange, shownValue, sourceHint, sourceOf } from "./line";

type Story = Model<"Story">;

const AGREEMENT_REASONS = ["no_agreement", "agreement_to_create"];

export function WhyDrawer(props: {
  lineId: number;
  mayEdit: boolean;
  onClose: () => void;
  onChange: (line: Line, change: Omit<LineChange, "version">) => Promise<unknown>;
  onExclude: (line: Line) => void;
}) {
  const { data: story, error, refetch } = useQuery({
    queryKey: ["why", props.lineId],
    queryFn: () => get<Story>(`lines/${props.lineId}/why`),
    staleTime: 0,
  });
  const [isEditing, setEditing] = useState(false);
  const line = story?.line;
  const change = async (values: Omit<LineChange, "version">) => {
    if (!line) return;
    await props.onChange(line, values);
    setEditing(false);
    await refetch();
  };
  const title = line ? `${line.subscription_name ?? line.offer_name ?? "Line"}, invoice ${line.invoice_number ?? "without number"}` : "Why";
  return (
    <Drawer title={title} onClose={props.onClose} footer={line && props.mayEdit && <Actions line={line} onChange={change} onExclude={() => props.onExclude(line)} onEdit={() => setEditing(true)} />}>
      {error !== null && <ErrorBox error={error} what="The story of this line could not be loaded" onRetry={() => refetch()} />}
      {story === undefined && error === null && <Loading what="story" />}
      {line && isEditing && <EditLine line={line} onCancel={() => setEditing(false)} onDone={change} />}
      {story && line && !isEditing && (
        <Stack gap={6}>
          <Summary line={line} decision={story.decision} />
          {line.held_reasons.length > 0 && <Reasons line={line} agreement={story.agreement} />}
          <ToSettle additions={story.unsettled} />
          <Values line={line} />
          {story.entries.length > 0 && <Entries entries={story.entries} />}
          {(story.connectwise.length > 0 || line.connectwise_addition_id !== null) && <InConnectWise story={story} />}
          {story.proof && <Section title="Proof">{<Text>{story.proof}</Text>}</Section>}
          {story.changed_since.length > 0 && (
            <Section title="Changed since it was decided">
              <ul>
                {story.changed_since.map((text) => (
                  <li key={text}>{text}</li>
                ))}
              </ul>
            </Section>
          )}
          <Events events={story.events} />
        </Stack>
      )}
    </Drawer>
  );
}

function Section({ title, children }: { title: string; children: React.ReactNode }) {
  return (
    <Box as="section">
      <Heading as="h3" size="sm" mb={2}>
        {title}
      </Heading>
      {children}
    </Box>
  );
}

function Summary({ line, decision }: { line: Line; decision: string }) {
  return (
    <Stack gap={2}>
      <HStack wrap="wrap">
        <OutcomeBadge outcome={line.outcome} />
        {line.typed && <Badge colorPalette="violet">User Updated</Badge>}
        {!line.typed && line.rules_version !== null && <Badge colorPalette="cyan">System Updated</Badge>}
        <Text fontWeight="semibold">{money(line.total_price, line.currency)}</Text>
        <Text color="fg.muted">
          {line.organization_name} · {line.billing_period}
        </Text>
      </HStack>
      <Text whiteSpace="pre-wrap">{decision}</Text>
      {line.lock && (
        <Text color="fg.muted" fontSize="sm">
          Locked: {line.lock}
        </Text>
      )}
      {line.typed && (
        <Text fontSize="sm" color="fg.muted">
          {line.typed.is_excluded ? "Excluded" : "Typed"} by {line.typed.decided_by}, <DateTime at={line.typed.decided_at} />
          {line.typed.reason && <>: “{line.typed.reason}”</>}
        </Text>
      )}
    </Stack>
  );
}

function Reasons({ line, agreement }: { line: Line; agreement: Story["agreement"] }) {
  return (
    <Section title={line.held_reasons.length === 1 ? "What holds it" : "What holds it: each of these"}>
      <Stack gap={2}>
        {line.held_reasons.map((reason) => (
          <Box key={reason.code} borderLeftWidth={3} borderLeftColor="orange.solid" pl={3}>
            <Text fontWeight="medium">{reason.title}</Text>
            {reason.detail && <Text fontSize="sm">{reason.detail}</Text>}
            <Text fontSize="sm" color="fg.muted">
              {reason.cure} Held <DateTime at={reason.held_since} relative />.
            </Text>
            {reason.cure_link && (
              <Text fontSize="sm">
                <TextLink to={`/${reason.cure_link}`}>Cure it</TextLink>
              </Text>
            )}
            {agreement && AGREEMENT_REASONS.includes(reason.code) && (
              <Box mt={1}>
                <RefuseAgreement companyId={agreement.company_id} companyName={line.company_name ?? "this company"} refusal={agreement.refusal} />
              </Box>
            )}
          </Box>
        ))}
      </Stack>
    </Section>
  );
}

/** The Additions that the line waits for, or that carry it, which a person must look at in ConnectWise. */
function ToSettle({ additions }: { additions: Unsettled[] }) {
  const [settling, setSettling] = useState<Unsettled | null>(null);
  if (additions.length === 0 && settling === null) return null;
  return (
    <Section title="To settle in ConnectWise">
      <Stack gap={2}>
        {additions.map((addition) => (
          <Flex key={addition.delivery_key} gap={3} justify="space-between" align="start" borderLeftWidth={3} borderLeftColor="red.solid" pl={3}>
            <Box>
              <Text fontWeight="medium">
                {nameOf(addition).replace("the", "The")} is {STATES[addition.state]}
              </Text>
              <Text fontSize="sm" color="fg.muted" whiteSpace="pre-wrap">
                {addition.problem}
              </Text>
            </Box>
            <GuardedButton permission="approve" size="sm" variant="outline" flexShrink={0} onClick={() => setSettling(addition)}>
              Settle …
            </GuardedButton>
          </Flex>
        ))}
      </Stack>
      {settling && <SettleDialog addition={settling} onClose={() => setSettling(null)} />}
    </Section>
  );
}

function Values({ line }: { line: Line }) {
  const source: Partial<Record<EditableField, string>> = {
    effective_date: line.charge_start_date ?? "",
    cancelled_date: line.charge_end_date ?? "",
    quantity: quantity(line.quantity),
    unit_price: price(line.unit_price),
  };
  const shown = (field: EditableField) =>
    field === "quantity" ? quantity(line.sent_quantity) : field === "unit_price" ? price(line.sent_unit_price) : shownValue(line, field);
  return (
    <Section title="From invoice to ConnectWise">
      <Table.Root size="sm" variant="outline">
        <Table.Header>
          <Table.Row>
            <Table.ColumnHeader>Value</Table.ColumnHeader>
            <Table.ColumnHeader>AppXite invoiced</Table.ColumnHeader>
            <Table.ColumnHeader>ConnectWise gets</Table.ColumnHeader>
            <Table.ColumnHeader>Comes from</Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          <Table.Row>
            <Table.Cell>Customer</Table.Cell>
            <Table.Cell>{line.organization_name}</Table.Cell>
            <Table.Cell>{line.company_name ?? "–"}</Table.Cell>
            <Table.Cell color="fg.muted">mapping</Table.Cell>
          </Table.Row>
          {(Object.keys(FIELD_TITLES) as EditableField[]).map((field) => (
            <Table.Row key={field}>
              <Table.Cell>{FIELD_TITLES[field]}</Table.Cell>
              <Table.Cell>{field === "product_id" ? line.offer_name : (source[field] ?? "")}</Table.Cell>
              <Table.Cell fontWeight={sourceOf(line, field) === "User Updated" ? "semibold" : undefined}>{shown(field) || "–"}</Table.Cell>
              <Table.Cell color="fg.muted" title={sourceHint(line, field) ?? undefined}>
                {sourceOf(line, field) ?? ""}
              </Table.Cell>
            </Table.Row>
          ))}
          <Table.Row fontWeight="semibold">
            <Table.Cell>Total</Table.Cell>
            <Table.Cell>{money(line.total_price, line.currency)}</Table.Cell>
            <Table.Cell>{money(line.sent_amount, line.currency) || "–"}</Table.Cell>
            <Table.Cell />
          </Table.Row>
        </Table.Body>
      </Table.Root>
      {line.cycle_start && (
        <Text fontSize="sm" color="fg.muted" mt={1}>
          Billing cycle in ConnectWise: {line.cycle_start} to {line.cycle_end}
        </Text>
      )}
    </Section>
  );
}

function Entries({ entries }: { entries: Story["entries"] }) {
  return (
    <Section title="What decided so">
      <DataList.Root orientation="horizontal" size="md" gap={2}>
        {entries.map((entry) => (
          <DataList.Item key={`${entry.role} ${entry.name}`} alignItems="flex-start">
            <DataList.ItemLabel minW="11rem">{entry.role}</DataList.ItemLabel>
            <DataList.ItemValue display="block">
              <Text>
                {entry.name}: {entry.value}
              </Text>
              <Text fontSize="xs" color="fg.muted">
                {[
                  entry.is_default ? "as shipped" : null,
                  entry.version === null ? null : `version ${entry.version}`,
                  entry.person,
                  entry.at === null ? null : dateTime(entry.at),
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </Text>
              {!entry.is_same_now && (
                <Text fontSize="xs">
                  <Badge colorPalette="amber">changed since</Badge> now {entry.value_now ?? "taken away"}
                </Text>
              )}
            </DataList.ItemValue>
          </DataList.Item>
        ))}
      </DataList.Root>
    </Section>
  );
}

function InConnectWise({ story }: { story: Story }) {
  const { line } = story;
  return (
    <Section title={`In ConnectWise${line.connectwise_addition_id === null ? "" : `: Addition ${line.connectwise_addition_id}`}`}>
      {story.connectwise.length > 0 && (
        <Table.Root size="sm" variant="outline">
          <Table.Header>
            <Table.Row>
              <Table.ColumnHeader>Field</Table.ColumnHeader>
              <Table.ColumnHeader>As sent</Table.ColumnHeader>
              <Table.ColumnHeader>As ConnectWise holds it</Table.ColumnHeader>
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {story.connectwise.map((field) => {
              const isDifferent = field.sent !== null && field.held !== null && field.sent !== field.held;
              return (
                <Table.Row key={field.name}>
                  <Table.Cell>{field.name}</Table.Cell>
                  <Table.Cell>{field.sent ?? "–"}</Table.Cell>
                  <Table.Cell>
                    {field.held ?? "–"} {isDifferent && <Badge colorPalette="red">different</Badge>}
                  </Table.Cell>
                </Table.Row>
              );
            })}
          </Table.Body>
        </Table.Root>
      )}
    </Section>
  );
}

function Events({ events }: { events: Story["events"] }) {
  if (events.length === 0) return null;
  return (
    <Section title="What happened">
      <Timeline.Root size="sm">
        {events.map((event, i) => (
          // biome-ignore lint: events are only ever added at the end
          <Timeline.Item key={i}>
            <Timeline.Connector>
              <Timeline.Separator />
              <Timeline.Indicator />
            </Timeline.Connector>
            <Timeline.Content>
              <Timeline.Description>
                <DateTime at={event.at} /> · {event.kind}
              </Timeline.Description>
              <Text fontSize="sm" whiteSpace="pre-wrap">
                {event.text}
              </Text>
            </Timeline.Content>
          </Timeline.Item>
        ))}
      </Timeline.Root>
    </Section>
  );
}

function Actions(props: { line: Line; onChange: (values: Omit<LineChange, "version">) => Promise<unknown>; onExclude: () => void; onEdit: () => void }) {
  const { line, onChange } = props;
  if (line.lock !== null) return <Text color="fg.muted">{line.lock}</Text>;
  const typed = line.typed?.fields ?? [];
  return (
    <Flex gap={2} wrap="wrap" justify="flex-end">
      {typed.length > 0 && (
        <Button variant="outline" onClick={() => onChange(Object.fromEntries(typed.map((field) => [field, null])))}>
          Reset to system values
        </Button>
      )}
      {line.typed?.is_excluded ? (
        <Button variant="outline" onClick={() => onChange({ is_excluded: false })}>
          Include again
        </Button>
      ) : (
        <Button variant="outline" onClick={props.onExclude}>
          Exclude
        </Button>
      )}
      <Button onClick={props.onEdit}>Edit values</Button>
    </Flex>
  );
}
