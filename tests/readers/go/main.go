// Reads predictions and explanations as a Go service would, with franz-go and hamba/avro, and prints one JSON line a message.
//
//	readers SERVERS SCHEMAS TOPIC KIND COUNT
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

const headerBytes = 10 // of Avro's single-object encoding

type source struct {
	Partition int   `avro:"partition"`
	Offset    int64 `avro:"offset"`
}

type prediction struct {
	Source     source               `avro:"source"`
	Outputs    map[string][]float64 `avro:"outputs"`
	Label      *string              `avro:"label"`
	Classes    []string             `avro:"classes"`
	LabelIndex *int                 `avro:"label_index"`
}

type attribution struct {
	Feature     string   `avro:"feature"`
	Attribution float64  `avro:"attribution"`
	Number      *float64 `avro:"number"`
	Text        *string  `avro:"text"`
}

type explanation struct {
	Source       source        `avro:"source"`
	BaseValue    float64       `avro:"base_value"`
	Attributions []attribution `avro:"attributions"`
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(servers, schemas, topic, kind, wanted string) error {
	count, err := strconv.Atoi(wanted)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(schemas + "/" + kind + ".avsc")
	if err != nil {
		return err
	}
	schema, err := avro.Parse(string(text))
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(servers), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := json.NewEncoder(os.Stdout)
	for read := 0; read < count; {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		for _, record := range fetches.Records() {
			line, err := decode(schema, kind, record.Value[headerBytes:])
			if err != nil {
				return err
			}
			if err := out.Encode(line); err != nil {
				return err
			}
			read++
		}
	}
	return nil
}

func decode(schema avro.Schema, kind string, value []byte) ([]any, error) {
	if kind == "prediction" {
		var p prediction
		err := avro.Unmarshal(schema, value, &p)
		return []any{p.Source.Partition, p.Source.Offset, p.Label, p.LabelIndex, p.Classes, p.Outputs}, err
	}
	var e explanation
	err := avro.Unmarshal(schema, value, &e)
	rows := [][]any{}
	for _, a := range e.Attributions {
		rows = append(rows, []any{a.Feature, a.Number, a.Text, a.Attribution})
	}
	return []any{e.Source.Partition, e.Source.Offset, e.BaseValue, rows}, err
}
