// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/api/remora/v1/remorav1connect"
	"github.com/remora-lb/remora/test/require"
)

// TestGRPC calls with another library, in each of the three forms of calls.
func TestGRPC(t *testing.T) {
	d := script([]Drain{drainOf(vip4, DrainRunning, 2)}, []Drain{drainOf(vip4, DrainDone, 0)})
	s := serve(t, d)
	conn, err := grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx := t.Context()

	var st remorav1.GetStatusResponse
	require.NoError(t, conn.Invoke(ctx, remorav1connect.ControlGetStatusProcedure, &remorav1.GetStatusRequest{}, &st))
	if len(st.Services) != 2 {
		t.Errorf("status is %v", &st)
	}

	err = conn.Invoke(ctx, remorav1connect.ControlDrainProcedure, &remorav1.DrainRequest{Backend: "10.20.0.1"}, &remorav1.DrainResponse{})
	gs := status.Convert(err)
	if gs.Code() != codes.NotFound || len(gs.Details()) != 1 {
		t.Fatalf("the error is %v with %v", gs, gs.Details())
	}
	if info, ok := gs.Details()[0].(*remorav1.ErrorInfo); !ok || info.Object != "10.20.0.1" || info.Cure == "" {
		t.Errorf("the detail is %v", gs.Details()[0])
	}

	watch, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, remorav1connect.ControlWatchDrainProcedure)
	require.NoError(t, err)
	require.NoError(t, watch.SendMsg(&remorav1.WatchDrainRequest{Backend: "10.20.0.11"}))
	require.NoError(t, watch.CloseSend())
	for _, want := range []remorav1.DrainState{remorav1.DrainState_DRAIN_STATE_RUNNING, remorav1.DrainState_DRAIN_STATE_DONE} {
		var m remorav1.WatchDrainResponse
		require.NoError(t, watch.RecvMsg(&m))
		if m.Drains[0].State != want {
			t.Errorf("state %v, want %v", m.Drains[0].State, want)
		}
	}
	if err := watch.RecvMsg(&remorav1.WatchDrainResponse{}); err != io.EOF {
		t.Errorf("the stream ends with %v", err)
	}

	load, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, remorav1connect.ControlImportStateProcedure)
	require.NoError(t, err)
	for _, part := range []string{"abc", "de"} {
		require.NoError(t, load.SendMsg(&remorav1.ImportStateRequest{Part: []byte(part)}))
	}
	require.NoError(t, load.CloseSend())
	var im remorav1.ImportStateResponse
	require.NoError(t, load.RecvMsg(&im))
	if im.Flows != 5 || string(d.document) != "abcde" {
		t.Errorf("imported %v, %q", &im, d.document)
	}
}

// TestGRPCDenied: who may not use the API can read that in gRPC, too.
func TestGRPCDenied(t *testing.T) {
	s := serve(t, &fakeDaemon{}, func(c *Config, _ *bounds) { c.Mode = 0o666 })
	var peer net.Conn
	var err error
	asUser(t, nobody, nobody, nil, func() { peer, err = net.Dial("unix", s.socket) })
	require.NoError(t, err)
	conn, err := grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return peer, nil }))
	require.NoError(t, err)
	defer conn.Close()
	err = conn.Invoke(t.Context(), remorav1connect.ControlGetStatusProcedure, &remorav1.GetStatusRequest{}, &remorav1.GetStatusResponse{})
	if gs := status.Convert(err); gs.Code() != codes.PermissionDenied || !strings.Contains(gs.Message(), "may not use the control API") {
		t.Errorf("the error is %v", err)
	}
}
