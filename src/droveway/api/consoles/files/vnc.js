import RFB from "../novnc/core/rfb.js";
import { open, say } from "./session.js";

const keys = document.getElementById("keys");
const paste = document.getElementById("paste");

function setUsable(isUsable) {
    keys.disabled = paste.disabled = !isUsable;
}

const socket = open(() => setUsable(false));
if (socket) {
    const rfb = new RFB(document.getElementById("screen"), socket, { shared: true });
    rfb.scaleViewport = true;
    rfb.addEventListener("connect", () => {
        say("connected");
        setUsable(true);
        rfb.focus();
    });
    keys.addEventListener("click", () => {
        rfb.sendCtrlAltDel();
        rfb.focus();
    });
    paste.addEventListener("click", () => {
        const text = window.prompt("This text is typed at the server, key by key:") || "";
        for (const character of text) {
            const code = character.codePointAt(0);
            // Of X11: Latin-1 is itself, the rest stands beyond 0x01000000, and a line's end is the key Return.
            rfb.sendKey(character === "\n" ? 0xff0d : code < 0x100 ? code : 0x01000000 | code, null);
        }
        rfb.focus();
    });
}
