import { Alert, Badge, Box, Button, Card, Code, Collapsible, DataList, Heading, HStack, List, Stack, Text } from "@chakra-ui/react";
import { useMutation } from "@tanstack/react-query";

import { ErrorBox } from "../../../components/ErrorBox";
import { GuardedButton } from "../../../components/GuardedButton";
import { send } from "../../../lib/api";
import { openInAirflow } from "../../../lib/airflow";
import type { Model } from "../../../models";
import { CONNECTION_HELP } from "./help";

export type ConnectionState = Model<"ConnectionState">;
type Source = NonNullable<ConnectionState["source"]>;

const KEPT_IN: Record<Source, string> = {
  database: "Airflow's database",
  environment: "an environment variable",
  "secrets backend": "a secrets backend",
};

/** One connection: what it is for, whether it is complete, and a test of it. */
export function ConnectionCard({ connection }: { connection: ConnectionState }) {
  const help = CONNECTION_HELP[connection.connection_id];
  const isElsewhere = connection.source !== null && connection.source !== "database";
  const isComplete = connection.exists && connection.missing.length === 0 && connection.message === null;
  const test = useMutation({
    mutationFn: () => send<Model<"ConnectionTest">>("POST", `connections/${connection.connection_id}/test`),
  });
  return (
    <Card.Root as="section" size="sm" aria-labelledby={`connection-${connection.connection_id}`}>
      <Card.Header>
        <HStack justify="space-between" align="start">
          <Heading as="h2" size="md" id={`connection-${connection.connection_id}`}>
            {connection.title}
          </Heading>
          <Badge colorPalette={isComplete ? "green" : "orange"}>
            {isComplete ? "complete" : connection.exists ? "incomplete" : "missing"}
          </Badge>
        </HStack>
        <Text fontSize="sm" color="fg.muted">
          {connection.purpose}
        </Text>
      </Card.Header>
      <Card.Body gap={4}>
        <DataList.Root orientation="horizontal" size="sm">
          <DataList.Item>
            <DataList.ItemLabel minW="24">Connection id</DataList.ItemLabel>
            <DataList.ItemValue>
              <Code size="sm">{connection.connection_id}</Code>
            </DataList.ItemValue>
          </DataList.Item>
          {connection.host && (
            <DataList.Item>
              <DataList.ItemLabel minW="24">Host</DataList.ItemLabel>
              <DataList.ItemValue wordBreak="break-all">{connection.host}</DataList.ItemValue>
            </DataList.Item>
          )}
          {connection.source && (
            <DataList.Item>
              <DataList.ItemLabel minW="24">Kept in</DataList.ItemLabel>
              <DataList.ItemValue>{KEPT_IN[connection.source]}</DataList.ItemValue>
            </DataList.Item>
          )}
          {connection.missing.length > 0 && (
            <DataList.Item>
              <DataList.ItemLabel minW="24">Missing</DataList.ItemLabel>
              <DataList.ItemValue color="fg.error">{connection.missing.join(", ")}</DataList.ItemValue>
            </DataList.Item>
          )}
        </DataList.Root>
        {connection.message && (
          <Alert.Root status="warning" size="sm">
            <Alert.Indicator />
            <Alert.Description>{connection.message}</Alert.Description>
          </Alert.Root>
        )}
        <HStack wrap="wrap">
          <GuardedButton
            permission="admin"
            whyNot={connection.exists ? null : "There is nothing to test yet."}
            size="sm"
            loading={test.isPending}
            loadingText="Asking…"
            onClick={() => test.mutate()}
          >
            Test
          </GuardedButton>
          <GuardedButton
            permission="admin"
            whyNot={isElsewhere ? `Airflow's form cannot change it: it is kept in ${KEPT_IN[connection.source as Source]}.` : null}
            size="sm"
            variant="outline"
            onClick={() => openInAirflow("connections")}
          >
            {connection.exists ? "Edit in Airflow" : "Create in Airflow"}
          </GuardedButton>
        </HStack>
        <Box aria-live="polite" _empty={{ display: "none" }}>
          {test.isSuccess && (
            <Alert.Root status={test.data.works ? "success" : "error"} size="sm">
              <Alert.Indicator />
              <Alert.Content>
                <Alert.Title>{test.data.works ? "It works" : "It does not work"}</Alert.Title>
                <Alert.Description whiteSpace="pre-wrap">
                  {test.data.message} ({test.data.seconds.toFixed(1)} s)
                </Alert.Description>
              </Alert.Content>
            </Alert.Root>
          )}
          {test.isError && <ErrorBox error={test.error} what="It could not be tested" />}
        </Box>
        {help && (
          <Collapsible.Root defaultOpen={!isComplete}>
            <Collapsible.Trigger asChild>
              <Button size="xs" variant="plain" px={0} textDecoration="underline" color="brand.fg">
                How it is set up
              </Button>
            </Collapsible.Trigger>
            <Collapsible.Content>
              <Stack gap={3} pt={2} fontSize="sm">
                <Text>
                  In Airflow, <b>Admin › Connections › Add</b>: id <Code size="sm">{connection.connection_id}</Code>, type{" "}
                  <Code size="sm">{help.connectionType}</Code>. Or one environment variable in every Airflow process:{" "}
                  <Code size="sm">AIRFLOW_CONN_{connection.connection_id.toUpperCase()}</Code>. One that is kept in an environment
                  variable or a secrets backend is not listed in Airflow's form.
                </Text>
                <DataList.Root size="sm">
                  {help.fields.map(({ field, value }) => (
                    <DataList.Item key={field}>
                      <DataList.ItemLabel>{field}</DataList.ItemLabel>
                      <DataList.ItemValue>{value}</DataList.ItemValue>
                    </DataList.Item>
                  ))}
                </DataList.Root>
                <Heading as="h3" size="xs">
                  Least privilege
                </Heading>
                <List.Root ps={4}>
                  {help.privileges.map((one) => (
                    <List.Item key={one}>{one}</List.Item>
                  ))}
                </List.Root>
              </Stack>
            </Collapsible.Content>
          </Collapsible.Root>
        )}
      </Card.Body>
    </Card.Root>
  );
}
