import { Toaster as Stack, Toast, createToaster } from "@chakra-ui/react";
import { ApiError } from "../lib/api";

const toaster = createToaster({ placement: "bottom-start", pauseOnPageIdle: true, max: 4 });

/** Says in a corner, and to screen readers, what was done. */
export function toast(type: "success" | "info" | "warning" | "error", title: string, description?: string): void {
  toaster.create({ type, title, description, closable: true, duration: type === "error" ? 15_000 : 6_000 });
}

export function toastError(error: unknown, what = "That did not work"): void {
  toast("error", what, error instanceof ApiError ? error.problem.message : String(error));
}

export function Toaster() {
  return (
    <Stack toaster={toaster} insetInline={{ mdDown: "4" }}>
      {(one) => (
        <Toast.Root width={{ md: "sm" }}>
          <Toast.Indicator />
          <div style={{ flex: 1 }}>
            <Toast.Title>{one.title}</Toast.Title>
            {one.description && <Toast.Description>{one.description}</Toast.Description>}
          </div>
          <Toast.CloseTrigger />
        </Toast.Root>
      )}
    </Stack>
  );
}
