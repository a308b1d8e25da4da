import { SimpleGrid } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";

import { ErrorBox } from "../../../components/ErrorBox";
import { Loading } from "../../../components/Loading";
import { Page } from "../../../components/Page";
import { get } from "../../../lib/api";
import { ConnectionCard, type ConnectionState } from "./ConnectionCard";

/** The three connections: are they there, do they work, and how are they made. No secret is ever shown. */
export function AuthenticationPage() {
  const connections = useQuery({ queryKey: ["connections"], queryFn: () => get<ConnectionState[]>("connections") });
  return (
    <Page
      title="Authentication"
      detail="The three Airflow connections that the pipeline needs. Their keys stay in Airflow; these pages never see them."
    >
      {connections.isPending && <Loading what="connections" />}
      {connections.isError && (
        <ErrorBox error={connections.error} what="The connections could not be read" onRetry={() => void connections.refetch()} />
      )}
      {connections.isSuccess && (
        <SimpleGrid columns={{ base: 1, xl: 3 }} gap={4} alignItems="start">
          {connections.data.map((one) => (
            <ConnectionCard key={one.connection_id} connection={one} />
          ))}
        </SimpleGrid>
      )}
    </Page>
  );
}
