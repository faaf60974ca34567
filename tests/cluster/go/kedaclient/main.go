// KEDA's own client of an external-push scaler, driven line by line.
//
// The first line of standard input is {"metadata": {...}, "auth": {...}}, a trigger as KEDA has it once it has looked up its
// secrets. Then each line is a command: `specs`, `metrics NAME` or `run`. Each answer is a line of JSON with when it came, in
// milliseconds since 1970; `run` answers whatever the stream brings for as long as the program lives, and what KEDA's code
// writes into its log is a line too: a stream that ends with anything but OK is an error there.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/kedacore/keda/v2/pkg/scalers"
	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
	autoscaling "k8s.io/api/autoscaling/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const callTimeout = 3 * time.Second // what KEDA's adapter gives a whole answer

type trigger struct {
	Metadata map[string]string `json:"metadata"`
	Auth     map[string]string `json:"auth"`
}

var writing sync.Mutex

func tell(what string, fields map[string]any) {
	writing.Lock()
	defer writing.Unlock()
	fields["what"], fields["at_ms"] = what, time.Now().UnixMilli()
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

func main() {
	log.SetLogger(funcr.NewJSON(func(line string) { tell("log", map[string]any{"line": line}) }, funcr.Options{Verbosity: 1}))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	var given trigger
	if !lines.Scan() {
		panic("no trigger")
	}
	if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
		panic(err)
	}
	scaler, err := scalers.NewExternalPushScaler(&scalersconfig.ScalerConfig{
		ScalableObjectName:      "worker",
		ScalableObjectNamespace: "ns",
		ScalableObjectType:      "ScaledObject",
		TriggerMetadata:         given.Metadata,
		AuthParams:              given.Auth,
		TriggerIndex:            0,
		MetricType:              autoscaling.AverageValueMetricType,
	})
	if err != nil {
		tell("refused", map[string]any{"error": err.Error()})
		return
	}
	everything, stop := context.WithCancel(context.Background())
	defer stop()
	for lines.Scan() {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		ctx, cancel := context.WithTimeout(everything, callTimeout)
		switch command {
		case "specs":
			tell("specs", map[string]any{"specs": scaler.GetMetricSpecForScaling(ctx)})
		case "metrics":
			began := time.Now()
			values, active, err := scaler.GetMetricsAndActivity(ctx, argument)
			fields := map[string]any{"values": values, "active": active, "took_ms": float64(time.Since(began).Microseconds()) / 1000}
			if err != nil {
				fields["error"] = err.Error()
			}
			tell("metrics", fields)
		case "run":
			active := make(chan bool)
			go scaler.Run(everything, active)
			go func() {
				for each := range active {
					tell("active", map[string]any{"active": each})
				}
			}()
			tell("running", map[string]any{})
		default:
			panic(command)
		}
		cancel()
	}
}
