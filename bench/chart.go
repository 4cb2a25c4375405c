// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
)

// figure is a drawing of a report.
type figure struct {
	title string
	svg   template.HTML
}

// bar is one of a bar chart. least and most are the ends of its spread; both 0: it has none.
type bar struct {
	label             string
	value             float64
	least, most       float64
	mark              float64 // a limit or reference of its own; 0: none
	isReference, fail bool
}

// Sizes of charts, in units of the view box, which is as wide as the page.
const (
	chartWidth  = 900
	labelWidth  = 340
	valueWidth  = 90
	barHeight   = 18
	barGap      = 6
	chartTop    = 8
	axisHeight  = 34
	lineHeight  = 300
	lineLeft    = 70
	chartMargin = 20
)

// drawing writes SVG. Texts are escaped here, and nowhere else.
type drawing struct{ strings.Builder }

func newDrawing(height int, label string) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, chartWidth, height, template.HTMLEscapeString(label))
	return d
}

func (d *drawing) text(class string, x, y float64, s string) {
	fmt.Fprintf(d, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, template.HTMLEscapeString(s))
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(d, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) rect(class string, x, y, w, h float64) {
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, class, x, y, max(w, 0), h)
}

// done gives the drawing up; it is safe, as only the methods above write to it.
func (d *drawing) done() template.HTML { return template.HTML(d.String() + "</svg>") }

// barChart draws horizontal bars from 0, with a line at the reference unless that is 0.
func barChart(title, unit string, reference float64, referenceName string, bars []bar) figure {
	most := reference
	for _, b := range bars {
		most = max(most, b.value, b.most, b.mark)
	}
	step, most := niceScale(most)
	bottom := float64(chartTop + len(bars)*(barHeight+barGap))
	d := newDrawing(int(bottom)+axisHeight, title)
	x := func(v float64) float64 {
		return labelWidth + min(v, most)/most*(chartWidth-labelWidth-valueWidth)
	}
	for v := 0.0; v <= most*1.0001; v += step {
		d.line("grid", x(v), chartTop, x(v), bottom)
		d.text("tick middle", x(v), bottom+14, figureText(v))
	}
	d.text("tick end", labelWidth-8, bottom+14, unit)
	for i, b := range bars {
		d.bar(b, float64(chartTop+i*(barHeight+barGap)), x)
	}
	if reference > 0 {
		d.line("reference", x(reference), chartTop, x(reference), bottom)
		d.text("tick middle", x(reference), bottom+29, referenceName)
	}
	return figure{title, d.done()}
}

func (d *drawing) bar(b bar, y float64, x func(float64) float64) {
	class := "bar"
	switch {
	case b.fail:
		class = "bar fail"
	case b.isReference:
		class = "bar of-reference"
	}
	middle := y + barHeight/2
	d.text("label end", labelWidth-8, middle+4, b.label)
	d.rect(class, labelWidth, y, x(max(b.value, 0))-labelWidth, barHeight)
	if b.most > b.least {
		d.line("spread", x(max(b.least, 0)), middle, x(b.most), middle)
	}
	if b.mark > 0 {
		d.line("mark", x(b.mark), y-2, x(b.mark), y+barHeight+2)
	}
	d.text("value", x(max(b.value, b.most, 0))+6, middle+4, figureText(b.value))
}

// series is one line of a line chart.
type series struct {
	name   string
	points [][2]float64
}

// lineChart draws at most as many series as there are classes of lines in the page's style.
func lineChart(title, xName, yName string, all []series) figure {
	var mostX, mostY float64
	for _, s := range all {
		for _, p := range s.points {
			mostX, mostY = max(mostX, p[0]), max(mostY, p[1])
		}
	}
	stepX, mostX := niceScale(mostX)
	stepY, mostY := niceScale(mostY)
	x := func(v float64) float64 { return lineLeft + v/mostX*(chartWidth-lineLeft-chartMargin) }
	y := func(v float64) float64 { return chartTop + (1-v/mostY)*lineHeight }
	const legend = 18
	d := newDrawing(chartTop+lineHeight+axisHeight+legend, title)
	for v := 0.0; v <= mostX*1.0001; v += stepX {
		d.line("grid", x(v), chartTop, x(v), chartTop+lineHeight)
		d.text("tick middle", x(v), chartTop+lineHeight+14, figureText(v))
	}
	for v := 0.0; v <= mostY*1.0001; v += stepY {
		d.line("grid", lineLeft, y(v), chartWidth-chartMargin, y(v))
		d.text("tick end", lineLeft-6, y(v)+4, figureText(v))
	}
	d.text("tick middle", (lineLeft+chartWidth)/2, chartTop+lineHeight+29, xName)
	d.text("tick", 4, chartTop+4, yName)
	for i, s := range all {
		d.series(i, s, x, y)
		at := float64(lineLeft + i*(chartWidth-lineLeft)/len(all))
		d.line(fmt.Sprintf("line line%d", i%lineClasses), at, chartTop+lineHeight+axisHeight+8, at+24, chartTop+lineHeight+axisHeight+8)
		d.text("label", at+30, chartTop+lineHeight+axisHeight+12, s.name)
	}
	return figure{title, d.done()}
}

// lineClasses is how many kinds of lines the page's style has.
const lineClasses = 6

func (d *drawing) series(i int, s series, x, y func(float64) float64) {
	points := slices.Clone(s.points)
	slices.SortFunc(points, func(a, b [2]float64) int { return int(math.Copysign(1, a[0]-b[0])) })
	var path []string
	for _, p := range points {
		path = append(path, fmt.Sprintf("%.1f,%.1f", x(p[0]), y(p[1])))
	}
	fmt.Fprintf(d, `<polyline class="line line%d" points="%s"/>`, i%lineClasses, strings.Join(path, " "))
	for _, p := range points {
		fmt.Fprintf(d, `<circle class="dot line%d" cx="%.1f" cy="%.1f" r="3"/>`, i%lineClasses, x(p[0]), y(p[1]))
	}
}

// niceScale returns a step of 1, 2 or 5 times a power of ten, and a whole number of them that covers
// most; both are more than 0.
func niceScale(most float64) (step, end float64) {
	if most <= 0 || math.IsNaN(most) || math.IsInf(most, 0) {
		return 1, 1
	}
	const steps = 6
	power := math.Pow(10, math.Floor(math.Log10(most/steps)))
	for _, n := range []float64{1, 2, 5, 10} {
		step = n * power
		if step*steps >= most {
			break
		}
	}
	return step, math.Ceil(most/step*0.9999) * step
}

// figureText writes three significant digits.
func figureText(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 1e6:
		return fmt.Sprintf("%.3g M", v/1e6)
	case a >= 100:
		return fixed(v, 0)
	}
	return fmt.Sprintf("%.3g", v)
}
