// Reads predictions and explanations as a Node service would, with kafkajs and avsc, and prints one JSON line a message.
//
//     node built/read.js SERVERS SCHEMAS TOPIC KIND COUNT
import { readFileSync } from "node:fs";
import { Type } from "avsc";
import { Kafka, logLevel } from "kafkajs";

interface Source { partition: number; offset: number }
interface Prediction {
  source: Source;
  outputs: Record<string, number[]>;
  label: string | null;
  classes: string[];
  label_index: number | null;
}
interface Attribution { feature: string; attribution: number; number: number | null; text: string | null }
interface Explanation { source: Source; base_value: number; attributions: Attribution[] }

const headerBytes = 10; // of Avro's single-object encoding
const [servers, schemas, topic, kind, count] = process.argv.slice(2);
const schema = JSON.parse(readFileSync(`${schemas}/${kind}.avsc`, "utf8"));
// `value` is a union of a number and a text, which avsc wraps unless told how to tell them apart: it is, by itself.
const type = Type.forSchema(schema, { wrapUnions: "never" });

function line(value: Buffer): unknown[] {
  if (kind === "prediction") {
    const p: Prediction = type.fromBuffer(value);
    return [p.source.partition, p.source.offset, p.label, p.label_index, p.classes, p.outputs];
  }
  const e: Explanation = type.fromBuffer(value);
  const rows = e.attributions.map((a) => [a.feature, a.number, a.text, a.attribution]);
  return [e.source.partition, e.source.offset, e.base_value, rows];
}

async function main(): Promise<void> {
  const consumer = new Kafka({ brokers: [servers], logLevel: logLevel.ERROR })
    .consumer({ groupId: `typescript-${topic}`, readUncommitted: false });
  const limit = setTimeout(() => { console.error("no end within a minute"); process.exit(1); }, 60_000);
  let read = 0;
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise<void>((resolve, reject) => {
    consumer.run({
      eachMessage: async ({ message }) => {
        try {
          process.stdout.write(JSON.stringify(line(message.value!.subarray(headerBytes))) + "\n");
        } catch (error) {
          reject(error);
        }
        if (++read === Number(count)) resolve();
      },
    }).catch(reject);
  });
  clearTimeout(limit);
  await consumer.disconnect();
}

main().catch((error) => { console.error(error); process.exit(1); });
