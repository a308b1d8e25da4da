import { Badge, Box, Button, Code, Grid, Heading, HStack, Stack, Text } from "@chakra-ui/react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useId, useRef, useState } from "react";

import { ConfirmDialog } from "../../../components/Dialog";
import { Dialog } from "../../../components/Dialog";
import { ErrorBox } from "../../../components/ErrorBox";
import { toast } from "../../../components/Toaster";
import { ApiError } from "../../../lib/api";
import { DateTime } from "../../../lib/format";
import { History } from "../../mapping/History";
import { storeSetting } from "./api";
import { showInPage } from "./scroll";
import { problemOf, SettingInput } from "./SettingInput";
import { SimulationDrawer } from "./SimulationDrawer";
import type { Setting } from "./types";

/** Not simulated, and yet they decide whether money is billed. */
const ABOUT_MONEY = new Set(["automated_daily_sync", "accepted_statuses", "create_mode"]);

interface Props {
  setting: Setting;
  refusal?: string;
  /** The address names this setting: it is scrolled to and marked. */
  isNamed: boolean;
}

/** One setting: what it is for, its value, who changed it, and what a change would do. */
export function SettingItem({ setting, refusal, isNamed }: Props) {
  const queries = useQueryClient();
  const describedBy = useId();
  const item = useRef<HTMLDivElement>(null);
  const [typed, setTyped] = useState<string | null>(null);
  const [open, setOpen] = useState<"confirm" | "simulation" | "history" | null>(null);
  const [other, setOther] = useState<Setting | null>(null);
  const value = typed ?? setting.value;
  const isChanged = typed !== null && typed !== setting.value;
  const problem = isChanged ? problemOf(setting, value) : null;
  const asksFirst = setting.is_simulated || setting.kind === "bound" || ABOUT_MONEY.has(setting.key);

  useEffect(() => {
    if (isNamed) showInPage(item.current);
  }, [isNamed]);

  const save = useMutation({
    mutationFn: (version: string) => storeSetting(setting.key, value, version),
    onSuccess: (stored) => {
      queries.setQueryData<Setting[]>(["settings"], (all) => all?.map((one) => (one.key === stored.key ? stored : one)));
      void queries.invalidateQueries({ queryKey: ["settings"] });
      void queries.invalidateQueries({ queryKey: ["setup"] });
      void queries.invalidateQueries({ queryKey: ["history", "billing.setting", setting.key] });
      setTyped(null);
      setOther(null);
      setOpen(null);
      toast("success", `${setting.title}: ${shownValue(setting, stored.value)}`, "It counts from the next decision on.");
    },
    onError: (error) => {
      if (error instanceof ApiError && error.status === 409 && error.problem.current) {
        setOpen(null);
        setOther(error.problem.current as Setting);
      }
    },
  });
  const isOvertaken = save.error instanceof ApiError && save.error.status === 409;

  return (
    <Box
      as="section"
      ref={item}
      borderWidth="1px"
      borderColor={isNamed ? "brand.focusRing" : "border"}
      borderRadius="md"
      p={4}
      aria-labelledby={`${describedBy}-title`}
    >
      <Grid templateColumns={{ base: "1fr", lg: "minmax(0, 5fr) minmax(0, 4fr)" }} gap={{ base: 3, lg: 6 }}>
        <Stack gap={1}>
          <HStack wrap="wrap" gap={2}>
            <Heading as="h3" size="sm" id={`${describedBy}-title`}>
              {setting.title}
            </Heading>
            <Code size="sm" variant="plain" color="fg.muted">
              {setting.key}
            </Code>
          </HStack>
          <Text fontSize="sm" id={describedBy}>
            {setting.description}
          </Text>
        </Stack>
        <Stack gap={2}>
          <SettingInput
            setting={setting}
            value={value}
            disabled={refusal !== undefined || setting.locked !== null}
            describedBy={describedBy}
            onChange={setTyped}
          />
          {setting.locked !== null && (
            <Text fontSize="sm" color="fg.muted">
              <Badge variant="surface">locked</Badge> {setting.locked}
            </Text>
          )}
          {problem && (
            <Text fontSize="sm" color="fg.error" role="alert">
              {problem}
            </Text>
          )}
          {save.isError && !isOvertaken && open !== "confirm" && <ErrorBox error={save.error} what="Not saved" />}
          {isChanged && (
            <HStack wrap="wrap">
              <Button
                size="xs"
                disabled={problem !== null || refusal !== undefined}
                loading={save.isPending}
                onClick={() => (asksFirst ? setOpen("confirm") : save.mutate(setting.version))}
              >
                Save
              </Button>
              {setting.is_simulated && (
                <Button size="xs" variant="outline" disabled={problem !== null} onClick={() => setOpen("simulation")}>
                  What would it change?
                </Button>
              )}
              <Button
                size="xs"
                variant="ghost"
                onClick={() => {
                  setTyped(null);
                  save.reset();
                }}
              >
                Discard
              </Button>
            </HStack>
          )}
          <HStack fontSize="xs" color="fg.muted" wrap="wrap" gap={2}>
            {setting.default !== null && setting.default !== setting.value && (
              <span>Default: {shownValue(setting, setting.default)}</span>
            )}
            {setting.changed_by ? (
              <span>
                {setting.changed_by}, <DateTime at={setting.changed_at} />
              </span>
            ) : (
              <span>never changed</span>
            )}
            <Button size="2xs" variant="ghost" aria-label={`History of ${setting.title}`} onClick={() => setOpen("history")}>
              History
            </Button>
          </HStack>
        </Stack>
      </Grid>
      {open === "confirm" && (
        <ConfirmDialog
          title={`Change ${setting.title}?`}
          confirm="Save"
          onConfirm={() => save.mutateAsync(setting.version)}
          onClose={() => setOpen(null)}
        >
          <Stack gap={3}>
            <BeforeAfter before={shownValue(setting, setting.value)} after={shownValue(setting, value)} />
            <Text>This setting is about money: it counts for all lines that are not delivered yet, from the next decision on.</Text>
            {setting.is_simulated && (
              <Text>
                A simulation tells what it would have changed in past periods:{" "}
                <Button size="2xs" variant="outline" onClick={() => setOpen("simulation")}>
                  What would it change?
                </Button>
              </Text>
            )}
          </Stack>
        </ConfirmDialog>
      )}
      {open === "simulation" && (
        <SimulationDrawer
          title={`${setting.title}: ${shownValue(setting, setting.value)} → ${shownValue(setting, value)}`}
          changes={{ settings: { [setting.key]: value } }}
          refusal={refusal}
          onSave={() => save.mutateAsync(setting.version)}
          onDiscard={() => {
            setTyped(null);
            setOpen(null);
          }}
          onClose={() => setOpen(null)}
        />
      )}
      {open === "history" && (
        <Dialog title={`History of ${setting.title}`} onClose={() => setOpen(null)}>
          <History table="billing.setting" rowKey={setting.key} />
        </Dialog>
      )}
      {other && (
        <Dialog
          title="Somebody else changed it meanwhile"
          onClose={() => setOther(null)}
          footer={
            <>
              <Button
                variant="outline"
                onClick={() => {
                  setTyped(null);
                  setOther(null);
                  void queries.invalidateQueries({ queryKey: ["settings"] });
                }}
              >
                Keep what is stored
              </Button>
              <Button loading={save.isPending} onClick={() => save.mutate(other.version)}>
                Store mine instead
              </Button>
            </>
          }
        >
          <Text>
            <b>{other.changed_by}</b> stored <b>{shownValue(setting, other.value)}</b> (<DateTime at={other.changed_at} />
            ). Yours is <b>{shownValue(setting, value)}</b>.
          </Text>
        </Dialog>
      )}
    </Box>
  );
}

export function BeforeAfter({ before, after }: { before: string; after: string }) {
  return (
    <Text fontSize="md">
      <Text as="span" color="fg.muted">
        {before}
      </Text>
      <span aria-label="becomes"> → </span>
      <b>{after}</b>
    </Text>
  );
}

/** A setting's value in words. */
function shownValue(setting: Setting, value: string): string {
  if (value === "") return "not set";
  return setting.kind === "choice" ? value.replaceAll("_", " ") : value;
}
