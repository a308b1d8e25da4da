// What an edit did to open lines, said in a toast: "37 lines, 4,123.00 EUR released".
import { get } from "../lib/api";
import { moneyList } from "../lib/format";
import type { Model } from "../models";
import { toast, toastError } from "./Toaster";

type Released = Model<"Released">;

const ASK_AGAIN_MS = 2_000;

/** done: what was done, as in "Approved". Follows what goes on in the background, and says its end, too. */
export function toastReleased(done: string, released: Released): void {
  if (released.state === "later" || released.state === "failed") {
    toast("warning", done, "Stored. Its lines could not be decided again just now; the next run does it.");
  } else if (released.state === "running" && released.run_id !== null && released.run_id !== undefined) {
    toast("info", done, "Its lines are being decided again in the background.");
    void follow(done, released.run_id);
  } else {
    const words = inWords(released);
    toast(words.isReleased || !words.isHeld ? "success" : "warning", done, words.text);
  }
}

function inWords(released: Released): { text: string | undefined; isReleased: boolean; isHeld: boolean } {
  const free = released.released ?? [];
  const held = released.held ?? [];
  const parts = [
    free.length > 0 ? `${moneyList(free)} released` : null,
    held.length > 0 ? `${moneyList(held)} held now` : null,
  ].filter((part) => part !== null);
  return { text: parts.length > 0 ? `${parts.join(". ")}.` : undefined, isReleased: free.length > 0, isHeld: held.length > 0 };
}

async function follow(done: string, runId: number): Promise<void> {
  try {
    let now: Released;
    do {
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
      now = await get<Released>(`decisions/${runId}`);
    } while (now.state === "running");
    if (now.state === "done") toast("success", done, inWords(now).text ?? "Its lines were decided again; none was released or held.");
    else toastReleased(done, now);
  } catch (error) {
    toastError(error, "It could not be told how far deciding again is");
  }
}
