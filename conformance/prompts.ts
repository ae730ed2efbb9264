import { randomBytes } from "node:crypto";

/** A word that stands in one prompt only. */
export function newWord(about: string): string {
  return `${about.toUpperCase()}-${randomBytes(4).toString("hex")}`;
}

/** A prompt that has the model say the word. */
export function saying(word: string): string {
  return `This is a check of the executor. [[text:${word}]]`;
}

/** A prompt that has the model do these steps, and say the word. */
export function doing(steps: readonly string[], word: string): string {
  return `This is a check of the executor, ${word}. [[${[...steps, `text:${word}`].join("; ")}]]`;
}

/** What a shell, a JSON writer, an argument list and a terminal each get wrong. It ends with a line end. */
export function awkward(word: string): string {
  return (
    `It's "quoted", \\ \`back\` $HOME \${x} $(id) %s %d & | ; * ? ~ <b>&amp;</b> !\n\ttab\r\n  two  spaces \n\n` +
    `Grüße, 日本語, \u{1F642} \u{1F469}\u200D\u{1F680}, e\u0301. [[text:${word}]]\n`
  );
}

/** A prompt of so many bytes. */
export function ofSize(bytes: number, word: string): string {
  const end = `\n[[text:${word}]]`;
  const line = "The quick brown fox jumps over the lazy dog and comes back again.\n";
  return line.repeat(Math.ceil(bytes / line.length)).slice(0, bytes - end.length) + end;
}

/** A prompt that a program which takes it for an argument takes for a flag. */
export function dashed(word: string): string {
  return `-x --help --version -- [[text:${word}]]`;
}
