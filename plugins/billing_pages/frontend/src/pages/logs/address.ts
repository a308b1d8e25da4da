/** State of the entries in the address. run: only of this run. */
export const LOG_ADDRESS = { levels: "", q: "", run: "", code: "", live: "on" };
