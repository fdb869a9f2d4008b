// A NATS client in another language, for the tests of the adapter.
//
//   node client.js URL publish                      stores the messages that standard input lists
//   node client.js URL read STREAM SUBJECT COUNT    prints what a subject holds
//
// A message is {subject, data, headers}: data in base64, headers a list of [name, value].
const { connect, headers } = require("nats");

async function publish(js) {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const chunk of process.stdin) text += chunk;
  for (const m of JSON.parse(text)) {
    const h = headers();
    for (const [name, value] of m.headers) h.append(name, value);
    await js.publish(m.subject, Buffer.from(m.data, "base64"), { headers: h });
  }
}

async function read(js, stream, subject, count) {
  const consumer = await js.consumers.get(stream, { filterSubjects: [subject] });
  const list = [];
  for await (const m of await consumer.fetch({ max_messages: count, expires: 10000 })) {
    const pairs = [];
    for (const [name, values] of m.headers ?? []) for (const value of values) pairs.push([name, value]);
    list.push({ subject: m.subject, data: Buffer.from(m.data).toString("base64"), headers: pairs });
  }
  console.log(JSON.stringify(list));
}

async function main([url, what, stream, subject, count]) {
  const nc = await connect({ servers: url });
  const js = nc.jetstream();
  await (what === "publish" ? publish(js) : read(js, stream, subject, Number(count)));
  await nc.close();
}

main(process.argv.slice(2)).catch((err) => {
  console.error(err);
  process.exit(1);
});
