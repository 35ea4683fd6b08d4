import { open, say } from "./session.js";

const terminal = new Terminal({ cursorBlink: true, scrollback: 10000, fontFamily: "monospace" });
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("screen"));
fit.fit();
window.addEventListener("resize", () => fit.fit());

const socket = open(() => (terminal.options.disableStdin = true));
if (socket) {
    const bytes = new TextEncoder();
    socket.addEventListener("open", () => {
        say("connected: press Enter where nothing is shown");
        terminal.focus();
    });
    socket.addEventListener("message", (event) => terminal.write(new Uint8Array(event.data)));
    terminal.onData((text) => socket.readyState === WebSocket.OPEN && socket.send(bytes.encode(text)));
    terminal.onBinary((text) => socket.readyState === WebSocket.OPEN && socket.send(Uint8Array.from(text, (c) => c.charCodeAt(0))));
}
