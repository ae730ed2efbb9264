import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TerminalFilter, forTerminal, jsonForTerminal } from "../../../cli/text/terminal.ts";
import { treeText } from "../../../cli/verbs/sessions-tree.ts";
import { create } from "@bufbuild/protobuf";
import { SessionSchema, SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import { clean } from "../../../cli/text/format.ts";

const RESET = "\u001b[0m";

describe("a terminal", () => {
  it.each([
    ["text, tabs and lines", "ünï → 😀\tok\r\nnext\n", "ünï → 😀\tok\nnext\n"],
    [
      "colours",
      "\u001b[1;38;5;9mred\u001b[0m \u001b[38:2::1:2:3mx\u001b[m",
      "\u001b[1;38;5;9mred\u001b[0m \u001b[38:2::1:2:3mx\u001b[m",
    ],
    ["no title", "\u001b]0;HACKED\u0007 bell\u0007", " bell"],
    ["no clipboard", "a\u001b]52;c;aGk=\u001b\\b", "ab"],
    ["no cursor, no erasing", "a\u001b[2Jb\u001b[10;5Hc\u001b[?25ld\u001b[1Ae\u001b7f\u001bcg", "abcdefg"],
    [
      "no device control, no graphics",
      "a\u001bPq#0\u001b\\b\u001b_Gf=100;AAAA\u001b\\c\u001b^x\u001b\\d\u001bXy\u001b\\e",
      "abcde",
    ],
    ["none of the same in one character", "a\u009b2Jb\u009d0;t\u009cc\u0090q\u009cd\u0085e\u0080", "abcde"],
    ["text that cannot be seen", "\u001b[8mx\u001b[1;8;31my\u001b[38;5;8mz", "x\u001b[1;31my\u001b[38;5;8mz"],
    ["colours in one character as the usual ones", "\u009b31mx\u009b0m", "\u001b[31mx\u001b[0m"],
    ["no overwriting", "password: \rover\r\r\nnext", "password: \nover\nnext"],
    [
      "no character set, no backspace, no other control",
      "a\u001b(0b\bc\u0000d\u000be\u000cf\u007fg\u000eh",
      "abcdefgh",
    ],
    ["no bidi embedding, override or isolate", "a\u202eb\u2066c\u2069\u200fd", "abc\u200fd"],
    ["no private parameters that end in m", "a\u001b[>4;2mb\u001b[?1mc", "abc"],
    ["a colour that is too long as nothing", `a\u001b[${"1;".repeat(40)}mb`, "ab"],
    ["what follows a title without an end, from the next line on", "a\u001b]0;t\nb", "a\nb"],
    ["a cancelled sequence up to its end", "a\u001b]0;t\u0018b\u001b[3\nc", "ab\nc"],
  ])("gets %s", (_what, text, shown) => {
    expect(forTerminal(text).replace(new RegExp(`${RESET.replace("[", "\\[")}$`), "")).toBe(
      shown.endsWith(RESET) ? shown.slice(0, -RESET.length) : shown,
    );
  });

  it("gets no colour of a program when it takes none", () => {
    expect(forTerminal("\u001b[31mred\u001b[0m", false)).toBe("red");
  });

  it("gets its colours back after a text that leaves them on", () => {
    expect(forTerminal("\u001b[31mred")).toBe(`\u001b[31mred${RESET}`);
  });

  const pieces = [
    "\u001b",
    "[",
    "]",
    "31",
    ";",
    "m",
    "J",
    "\u0007",
    "\\",
    "\r",
    "\n",
    "a",
    "\u009b",
    "\u009d",
    "\u009c",
    "\u202e",
    "😀",
    "P",
    "(",
    "?",
  ];
  const text = fc.array(fc.constantFrom(...pieces), { maxLength: 40 }).map((it) => it.join(""));

  it("gets the same, however the text is cut into chunks", () => {
    fc.assert(
      fc.property(text, fc.array(fc.nat(60), { maxLength: 6 }), (whole, cuts) => {
        const filter = new TerminalFilter();
        const places = [0, ...cuts.map((cut) => cut % (whole.length + 1)).toSorted((a, b) => a - b), whole.length];
        const shown = places.slice(1).map((place, i) => filter.write(whole.slice(places[i], place)));
        expect(shown.join("")).toBe(new TerminalFilter().write(whole));
      }),
    );
  });

  it("gets nothing but text, line ends and colours, whatever comes", () => {
    fc.assert(
      fc.property(fc.oneof(text, fc.string({ unit: "binary" })), (whole) => {
        // eslint-disable-next-line no-control-regex
        const rest = forTerminal(whole).replaceAll(/\u001b\[[\d;:]*m/g, "");
        // eslint-disable-next-line no-control-regex
        expect(rest).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/);
      }),
    );
  });

  it("goes on with text after a title that never ends", () => {
    const filter = new TerminalFilter();
    expect(filter.write("\u001b]0;") + filter.write("x".repeat(1024 * 1024 - 2)) + filter.write("text")).toBe("text");
  });

  it("gets JSON that says the same", () => {
    const value = { text: "a\u009b2J\u202eb\u007f\n" };
    const json = jsonForTerminal(JSON.stringify(value));
    expect(json).toBe(String.raw`{"text":"a\u009b2J\u202eb\u007f\n"}`);
    expect(JSON.parse(json)).toEqual(value);
  });
});

describe("names", () => {
  const name = "a\u001b]0;t\u0007\u202eb\u2028c";
  it("are shown with what would turn or move the text", () => {
    expect(clean(name)).toBe(String.raw`a\x1b]0;t\x07\u202eb⏎c`);
  });
  it("are cleaned in the tree of sessions", () => {
    const session = create(SessionSchema, {
      sessionId: "ses_1",
      sessionName: name,
      agentName: name,
      status: SessionStatus.IDLE,
    });
    expect(treeText({ session, children: [], hidden: 0 })).toBe(`ses_1  ${clean(name)}  (${clean(name)})  idle`);
  });
});
