import { Button, CloseButton, Dialog as Parts, Portal } from "@chakra-ui/react";
import { type ReactNode, useState } from "react";
import { ErrorBox } from "./ErrorBox";

type DialogProps = {
  title: string;
  onClose: () => void;
  children: ReactNode;
  footer?: ReactNode;
  size?: "sm" | "md" | "lg" | "xl";
};

/** A dialog that is open as long as it is rendered. */
export function Dialog({ title, onClose, children, footer, size = "md" }: DialogProps) {
  return (
    <Parts.Root open onOpenChange={(e) => !e.open && onClose()} size={size} scrollBehavior="inside" placement="center">
      <Portal>
        <Parts.Backdrop />
        <Parts.Positioner>
          <Parts.Content>
            <Parts.Header>
              <Parts.Title>{title}</Parts.Title>
            </Parts.Header>
            <Parts.Body>{children}</Parts.Body>
            {footer && <Parts.Footer>{footer}</Parts.Footer>}
            <Parts.CloseTrigger asChild>
              <CloseButton size="sm" />
            </Parts.CloseTrigger>
          </Parts.Content>
        </Parts.Positioner>
      </Portal>
    </Parts.Root>
  );
}

/** Asks before something is done; an error of onConfirm is shown and the dialog stays. */
export function ConfirmDialog(props: {
  title: string;
  children: ReactNode;
  confirm: string;
  isDanger?: boolean;
  isDisabled?: boolean;
  size?: DialogProps["size"];
  onConfirm: () => Promise<unknown> | unknown;
  onClose: () => void;
}) {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const confirm = async () => {
    setBusy(true);
    setError(null);
    try {
      await props.onConfirm();
      props.onClose();
    } catch (problem) {
      setError(problem);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog
      title={props.title}
      size={props.size}
      onClose={props.onClose}
      footer={
        <>
          <Button variant="outline" onClick={props.onClose}>
            Cancel
          </Button>
          <Button colorPalette={props.isDanger ? "red" : "brand"} loading={isBusy} disabled={props.isDisabled} onClick={confirm}>
            {props.confirm}
          </Button>
        </>
      }
    >
      {props.children}
      {error !== null && <ErrorBox error={error} />}
    </Dialog>
  );
}
